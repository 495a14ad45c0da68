"""What is read: one order with its timeline, and lists of orders. Nothing here is personal."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

from pydantic import BaseModel

from services.order import timeline
from shared.events.order import OrderPlaced
from shared.money import round_money
from shared.overload import Gate
from shared.postgres import Connection, Row
from shared.telemetry import PROCESS_STATES

ORDER = """
SELECT o.order_id, o.channel, o.external_reference, o.state, o.reason, o.version, o.customer_id, o.recipient_id,
       o.currency, o.expected_total, o.total, o.cancelled_amount, o.cancelled_lines, o.request, o.priced_lines,
       o.identified, o.held, o.deadline_at, o.placed_at, o.recorded_at,
       o.fulfilment, o.cancellation, o.settled,
       p.payment_id, p.provider, p.amount, p.state AS payment_state, p.captured, p.refunded, p.redirect_url
FROM orders o LEFT JOIN payments p USING (order_id) WHERE o.order_id = ANY($1::uuid[])
"""

# Own steps by sequence; what the customer was told is sorted in by when that was recorded.
TIMELINE = """
SELECT order_id, sequence, type, cause, detail, occurred_at, recorded_at FROM
    (SELECT order_id, sequence, type, cause, detail, occurred_at, recorded_at FROM timeline
     WHERE order_id = ANY($1::uuid[])
     UNION ALL
     SELECT order_id, NULL, type, cause, detail || jsonb_build_object('care', sequence), occurred_at, recorded_at
     FROM care_steps WHERE order_id = ANY($1::uuid[])) AS steps
ORDER BY recorded_at, sequence
"""

PARCELS = """
SELECT order_id, number, warehouse, items, state, carrier, tracking, promised_at, late FROM parcels
WHERE order_id = ANY($1::uuid[]) ORDER BY number
"""

LIST = """
SELECT order_id, channel, external_reference, state, reason, customer_id, currency, total, cancelled_amount,
       placed_at, recorded_at
FROM orders
WHERE ($1::uuid IS NULL OR order_id < $1) AND ($2::text IS NULL OR state = $2) AND ($3::text IS NULL OR channel = $3)
  AND ($4::uuid IS NULL OR customer_id = $4) AND ($5::text IS NULL OR external_reference = $5)
ORDER BY order_id DESC LIMIT $6
"""

STATE = "SELECT state FROM orders WHERE order_id = $1"

OPEN_COUNTS = "SELECT state, count(*) AS orders FROM orders WHERE deadline_at IS NOT NULL GROUP BY state"

# Ids are in the order of arrival, but for those that are committed a moment later than others begun after them.
ARRIVED = """
SELECT (SELECT count(*) FROM orders WHERE order_id > $1) AS arrived,
       (SELECT order_id FROM orders ORDER BY order_id DESC LIMIT 1) AS latest,
       (SELECT count(*) FROM payments WHERE due_at IS NOT NULL AND state = 'requested') AS uncharged
"""

COUNTS = "SELECT state, count(*) AS orders FROM orders GROUP BY state"

REQUEST = {"lines", "coupon", "points", "destination", "quote_id"}  # what is kept of an order as it was asked

Fields: TypeAlias = "Row | Mapping[str, Any]"


class Step(BaseModel):
    """One event; ``after_ms`` is the time since the order was recorded. What is not the order's own has no sequence."""

    sequence: int | None
    type: str
    cause: UUID
    detail: dict[str, Any]
    occurred_at: datetime
    recorded_at: datetime
    after_ms: float


class Line(BaseModel):
    """A line as asked for and, once priced, with its price. Amounts contain tax."""

    line: int
    sku: str
    quantity: int
    cancelled: int = 0
    unit_price: Decimal | None = None
    discount: Decimal | None = None
    total: Decimal | None = None
    tax: Decimal | None = None


class PaymentView(BaseModel):
    payment_id: UUID
    provider: str
    state: str
    amount: Decimal
    captured: Decimal
    refunded: Decimal
    redirect_url: str | None = None


class ParcelView(BaseModel):
    """``items``: units by SKU; ``state`` as of ``services.order.state.Parcel``."""

    number: int
    warehouse: str
    items: dict[str, int]
    state: str
    carrier: str | None
    tracking: str | None
    promised_at: datetime | None
    late: bool


class Summary(BaseModel):
    order_id: UUID
    channel: str
    external_reference: str
    state: str
    reason: str | None
    customer_id: UUID | None
    currency: str
    total: Decimal | None
    cancelled_amount: Decimal
    placed_at: datetime
    recorded_at: datetime


class OrderView(Summary):
    """``waiting_for`` names the answers that are still missing; ``deadline_at`` is when the order ends without them."""

    version: int
    recipient_id: UUID | None
    expected_total: Decimal | None
    quote_id: UUID | None
    waiting_for: list[str]
    deadline_at: datetime | None
    lines: list[Line]
    payment: PaymentView | None
    fulfilment: str
    parcels: list[ParcelView]
    cancellation_pending: bool = False  # the carrier is asked to give parcels back
    settled: bool
    timeline: list[Step]


async def found(db: Connection, order_ids: Sequence[UUID]) -> list[OrderView | None]:
    """An order for each id, None where there is none."""
    rows = {row["order_id"]: row for row in await db.fetch(ORDER, order_ids)}
    steps, parcels = defaultdict[UUID, list[Row]](list), defaultdict[UUID, list[Row]](list)
    for step in await db.fetch(TIMELINE, order_ids):
        steps[step["order_id"]].append(step)
    for parcel in await db.fetch(PARCELS, order_ids):
        parcels[parcel["order_id"]].append(parcel)
    return [_view(rows[id_], steps[id_], parcels[id_]) if id_ in rows else None for id_ in order_ids]


def of_new(event: OrderPlaced, fulfilment: str, recorded_at: datetime, deadline_at: datetime) -> OrderView:
    """An order that has just been placed, as ``found`` would show it: nothing has happened to it yet."""
    at = event.occurred_at.astimezone(UTC)
    order_id, sequence, type_, cause, detail, _ = timeline.row(event, 1, event.order_id)
    step = {"order_id": order_id, "sequence": sequence, "type": type_, "cause": cause, "detail": detail,
            "occurred_at": at, "recorded_at": recorded_at}  # fmt: skip
    row: dict[str, Any] = {
        **dict.fromkeys(("reason", "recipient_id", "total", "priced_lines", "cancellation", "payment_id")),
        **dict.fromkeys(("identified", "held", "settled"), False),
        **{name: getattr(event, name) for name in ("channel", "external_reference", "customer_id", "currency")},
        "order_id": order_id, "state": "placed", "version": 1, "expected_total": event.expected_total,
        "cancelled_amount": Decimal(0), "cancelled_lines": {}, "request": kept_request(event),
        "deadline_at": deadline_at, "placed_at": at, "recorded_at": recorded_at, "fulfilment": fulfilment,
    }  # fmt: skip
    return _view(row, [step], [])


def kept_request(event: OrderPlaced) -> dict[str, Any]:
    """What is kept of an order as it was asked."""
    return event.model_dump(mode="json", include=REQUEST, exclude_none=True)


def _view(row: Fields, steps: Sequence[Fields], parcels: Sequence[Fields]) -> OrderView:
    priced = {line["line"]: line for line in row["priced_lines"] or ()}
    cancelled = row["cancelled_lines"]
    lines = [
        Line.model_validate(
            {**asked, **priced.get(asked["line"], {}), "cancelled": cancelled.get(str(asked["line"]), 0)}
        )
        for asked in row["request"]["lines"]
    ]
    payment = None
    if row["payment_id"] is not None:
        payment = PaymentView(
            payment_id=row["payment_id"], provider=row["provider"], state=row["payment_state"], amount=row["amount"],
            captured=round_money(row["captured"], row["currency"]),
            refunded=round_money(row["refunded"], row["currency"]), redirect_url=row["redirect_url"],
        )  # fmt: skip
    legs = {"identification": row["identified"], "price": row["priced_lines"] is not None, "stock": row["held"]}
    waiting = {"placed": [leg for leg, there in legs.items() if not there], "paying": ["payment"]}
    timeline = [
        Step(**step, after_ms=round((step["recorded_at"] - row["recorded_at"]).total_seconds() * 1000, 1))
        for step in steps
    ]
    return OrderView(
        **_summary(row), version=row["version"], recipient_id=row["recipient_id"],
        expected_total=row["expected_total"], quote_id=row["request"].get("quote_id"),
        waiting_for=waiting.get(row["state"], []), deadline_at=row["deadline_at"],
        lines=lines, payment=payment, fulfilment=row["fulfilment"],
        parcels=[ParcelView(**parcel) for parcel in parcels],
        cancellation_pending=row["cancellation"] is not None, settled=row["settled"], timeline=timeline,
    )  # fmt: skip


async def orders(
    db: Connection, *, after: UUID | None, state: str | None, channel: str | None, customer_id: UUID | None,
    reference: str | None, limit: int,
) -> list[Summary]:  # fmt: skip
    """Newest first."""
    return [
        Summary(**_summary(row)) for row in await db.fetch(LIST, after, state, channel, customer_id, reference, limit)
    ]


def _summary(row: Fields) -> dict[str, Any]:
    summary = {name: row[name] for name in Summary.model_fields}
    return summary | {"cancelled_amount": round_money(row["cancelled_amount"], row["currency"])}


async def state_of(db: Connection, order_id: UUID) -> str | None:
    return await db.fetchval(STATE, order_id)


async def counts(db: Connection) -> dict[str, int]:
    return {row["state"]: row["orders"] for row in await db.fetch(COUNTS)}


@dataclass
class Observer:
    """Shows how many orders are open, by state, and tells the gate how many of them wait for us or other services.

    The index of deadlines makes this cheap however many have ended.
    """

    gate: Gate
    latest: UUID | None = None

    async def look(self, db: Connection) -> None:
        counts = dict.fromkeys(("placed", "paying"), 0)
        counts |= {row["state"]: row["orders"] for row in await db.fetch(OPEN_COUNTS)}
        for state, number in counts.items():
            PROCESS_STATES.labels("order", state).set(number)
        row = await db.fetchrow(ARRIVED, self.latest)
        assert row is not None
        # Others in `paying` wait for the buyer or the bank.
        self.gate.observed(counts["placed"] + row["uncharged"], row["arrived"], time.monotonic())
        self.latest = row["latest"] or self.latest
