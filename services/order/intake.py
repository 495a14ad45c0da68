"""How an order comes in: checked, sealed, recorded and announced, in one transaction."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
import uuid_utils
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from services.order import knowledge, timeline
from services.order.settings import OrderSettings
from services.order.views import OrderView, kept_request, of_new
from shared import bodies
from shared.auth import Principal
from shared.countries import Country
from shared.events.order import BuyerSealed, Destination, OrderLine, OrderPlaced
from shared.messages import Cause
from shared.money import MINOR_DIGITS, Currency, round_money
from shared.partitions import partition_of
from shared.postgres import Tx, columns
from shared.problems import Problem
from shared.sealing import Buyer, Recipient, SealedBuyer, seal
from shared.topics import INTAKE, ORDERS
from shared.tracing import Trace

MAX_LINES = 2_000
MAX_UNITS = 1_000_000
BRITISH_CODE = re.compile(r"([A-Z]{1,2}[0-9][A-Z0-9]?) *[0-9][A-Z]{2}")
# A digit among the first two, three to eight signs, or two groups: neither a name nor a whole telephone number.
POSTAL_CODE = re.compile(r"(?=.?[0-9])(?=.{3})([A-Z0-9]{2})[A-Z0-9]{0,6}([ -][A-Z0-9]{2,4})?")

Text = Annotated[str, Field(min_length=1, max_length=200)]


class Body(bodies.Body):
    model_config = ConfigDict(frozen=True)


class LineBody(Body):
    sku: Annotated[str, Field(min_length=1, max_length=64)]
    quantity: Annotated[int, Field(ge=1, le=MAX_UNITS, strict=True)]
    unit_price: Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=6)] | None = Field(
        default=None, description="only with the scope orders:import: the channel's own price, tax contained"
    )


class BuyerBody(Buyer, Body):
    name: Text | None = None
    email: Annotated[str, Field(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")] | None = None
    phone: Annotated[str, Field(max_length=40)] | None = None
    channel_id: Text | None = None


class RecipientBody(Recipient, Body):
    name: Text
    street: Text
    city: Text
    postal_code: Annotated[str, Field(max_length=20)] | None = None
    region: Annotated[str, Field(max_length=100)] | None = None
    country: Country
    phone: Annotated[str, Field(max_length=40)] | None = None


class CardBody(Body):
    """A token of the payment provider; the card itself never comes here."""

    method: Literal["card"]
    token: Annotated[str, Field(min_length=1, max_length=255)]


class PrepaidBody(Body):
    """The channel has the money already; only with the scope orders:import."""

    method: Literal["prepaid"]
    fee: Annotated[Decimal, Field(ge=0, max_digits=15, decimal_places=3)] | None = Field(
        default=None, description="what the channel keeps of it"
    )


class OrderBody(Body):
    """An order as a channel sends it. ``channel`` and ``external_reference`` name it for ever."""

    channel: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    external_reference: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/#+-]{0,199}$")]
    customer_id: UUID | None = None
    currency: Currency
    buyer: BuyerBody = BuyerBody()
    recipient: RecipientBody
    lines: Annotated[list[LineBody], Field(min_length=1, max_length=MAX_LINES)]
    quote_id: UUID | None = Field(
        default=None, description="of POST /quotes: the order costs what was quoted, if it asks for the same in time"
    )
    coupon: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    points: Annotated[int, Field(ge=0, le=100_000_000, strict=True)] = 0
    expected_total: Annotated[Decimal, Field(ge=0, max_digits=15, decimal_places=3)] | None = Field(
        default=None, description="what the buyer was shown; another price rejects the order"
    )
    payment: Annotated[CardBody | PrepaidBody, Field(discriminator="method")]
    fulfilment: Literal["carrier", "channel", "immediate"] | None = Field(
        default=None,
        description="channel: it ships the order itself, and says so later; immediate: handed over when confirmed; "
        "both only with the scope orders:import. Otherwise our carrier",
    )
    note: Annotated[str, Field(max_length=2000)] | None = None
    placed_at: AwareDatetime | None = Field(
        default=None, description="business time, only with the scope orders:import; otherwise now"
    )

    @field_validator("points")
    @classmethod
    def _are_somebodys(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("customer_id") is None:
            raise ValueError("points are redeemed by a known customer only: name the customer_id")
        return value

    @field_validator("quote_id")
    @classmethod
    def _is_the_only_price(cls, value: UUID | None, info: ValidationInfo) -> UUID | None:
        lines: Sequence[LineBody] = info.data.get("lines", ())
        if value is not None and any(line.unit_price is not None for line in lines):
            raise ValueError("lines with a unit_price of the channel's own cannot have a quote's")
        return value

    @field_validator("payment")
    @classmethod
    def _keeps_whole_cents(cls, value: CardBody | PrepaidBody, info: ValidationInfo) -> CardBody | PrepaidBody:
        fee, currency = getattr(value, "fee", None), str(info.data.get("currency", ""))
        if fee is not None and fee != round_money(fee, currency):
            raise ValueError(f"fee: {currency} has {MINOR_DIGITS.get(currency, 2)} decimals")
        return value

    @field_validator("expected_total")
    @classmethod
    def _has_the_digits_of_its_currency(cls, value: Decimal | None, info: ValidationInfo) -> Decimal | None:
        currency = str(info.data.get("currency", ""))
        if value is not None and value != round_money(value, currency):
            raise ValueError(f"{currency} has {MINOR_DIGITS.get(currency, 2)} decimals")
        return value


@dataclass(frozen=True)
class Placed:
    """``new`` is false when the same order was there already; a new one has a ``view`` of how it was placed."""

    order_id: UUID
    new: bool
    view: Callable[[], OrderView] | None = None


INSERT_ORDERS = """
INSERT INTO orders (order_id, channel, external_reference, fingerprint, partition, state, version, customer_id,
                    currency, expected_total, prepaid, payment_token, request, placed_at, fulfilment, channel_fee,
                    traceparent, deadline_at)
SELECT n.*, now() + $16 * interval '1 second'
FROM (SELECT order_id, channel, reference, fingerprint, partition, 'placed', 1, customer_id, currency, expected_total,
             prepaid, token, request, placed_at, fulfilment, fee, traceparent
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::smallint[], $6::uuid[], $7::text[],
                  $8::numeric[], $9::bool[], $10::text[], $11::jsonb[], $12::timestamptz[], $13::text[], $14::numeric[],
                  $15::text[])
           AS n (order_id, channel, reference, fingerprint, partition, customer_id, currency, expected_total, prepaid,
                 token, request, placed_at, fulfilment, fee, traceparent)) AS n
ORDER BY n.channel, n.reference, n.order_id -- of two in one batch the first is placed
ON CONFLICT (channel, external_reference) DO NOTHING RETURNING order_id, recorded_at, deadline_at
"""

EXISTING = """
SELECT o.channel, o.external_reference, o.order_id, o.fingerprint FROM orders o
JOIN unnest($1::text[], $2::text[]) AS n (channel, reference)
  ON (o.channel, o.external_reference) = (n.channel, n.reference)
"""

INSERT_SEALED = (
    "INSERT INTO sealed_buyers (order_id, key_id, sealed) SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[])"
)


def check_scopes(body: OrderBody, principal: Principal) -> None:
    """Only a trusted channel names its own prices, its own time, or orders that are paid. Raises 403."""
    if "orders:import" in principal.scopes:
        return
    asked = {
        "placed_at": body.placed_at is not None,
        "payment.method": isinstance(body.payment, PrepaidBody),
        "lines.unit_price": any(line.unit_price is not None for line in body.lines),
        "fulfilment": body.fulfilment in ("channel", "immediate"),
    }
    errors = [{"field": name, "message": "needs the scope orders:import"} for name, wanted in asked.items() if wanted]
    if errors:
        raise Problem(403, "Forbidden", "the token lacks the scope orders:import", errors=errors)


async def check_items(tx: Tx, bodies: Sequence[OrderBody]) -> list[Problem | None]:
    """Per order, what is wrong with its SKUs."""
    unknown = await knowledge.unknown_items(tx, (line.sku for body in bodies for line in body.lines))

    def problem(body: OrderBody) -> Problem | None:
        errors = [
            {"field": f"lines.{number}.sku", "message": f"unknown SKU {line.sku}"}
            for number, line in enumerate(body.lines)
            if line.sku in unknown
        ]
        detail = f"{len(errors)} line(s) name a SKU that cannot be ordered"
        return Problem(422, "Invalid input", detail, code="unknown_sku", errors=errors[:50]) if errors else None

    return [problem(body) for body in bodies]


async def place(
    tx: Tx, bodies: Sequence[OrderBody], settings: OrderSettings, traces: Sequence[Trace]
) -> list[Placed | Problem]:
    """Record orders, all in one transaction; per order what became of it. SKUs and scopes were checked before.

    The same reference with the same body finds the first order; with another body it is a 409.
    """
    key = await knowledge.current_key(tx)
    if key is None:
        raise Problem(503, "Not ready", "the customer service has not published a sealing key yet",
                      headers={"Retry-After": "2"})  # fmt: skip
    now = datetime.now(UTC)
    prints = [fingerprint(body, settings.fingerprint_key) for body in bodies]
    events = [_event(body, UUID(str(uuid_utils.uuid7())), body.placed_at or now) for body in bodies]
    rows = [
        (
            event.order_id, body.channel, body.external_reference, print_, partition_of(str(event.order_id), ORDERS),
            body.customer_id, body.currency, body.expected_total, event.prepaid,
            body.payment.token if isinstance(body.payment, CardBody) else None,
            kept_request(event),
            event.occurred_at, body.fulfilment or "carrier",
            (body.payment.fee if isinstance(body.payment, PrepaidBody) else None) or Decimal(0), str(trace),
        )
        for body, event, print_, trace in zip(bodies, events, prints, traces, strict=True)
    ]  # fmt: skip
    inserted = await tx.db.fetch(INSERT_ORDERS, *columns(rows), settings.answer_deadline)
    new = {row["order_id"]: (row["recorded_at"], row["deadline_at"]) for row in inserted}
    if new:
        placed = [one for one in zip(bodies, events, traces, strict=True) if one[1].order_id in new]
        await _announce(tx, placed, key, inserted[0]["recorded_at"])
    known = await _existing(tx, [b for b, e in zip(bodies, events, strict=True) if e.order_id not in new])
    return [
        Placed(
            event.order_id, new=True, view=partial(of_new, event, body.fulfilment or "carrier", *new[event.order_id])
        )
        if event.order_id in new
        else _same(body, print_, known)
        for body, event, print_ in zip(bodies, events, prints, strict=True)
    ]


async def _announce(
    tx: Tx, placed: Sequence[tuple[OrderBody, OrderPlaced, Trace]], key: knowledge.SealingKey, at: datetime
) -> None:  # fmt: skip
    sealed: list[str] = []
    for body, event, trace in placed:
        content = SealedBuyer(order_id=event.order_id, buyer=body.buyer, recipient=body.recipient, note=body.note)
        sealed.append(seal(key.public_key, content))
        cause = Cause(id=event.order_id, correlation_id=str(event.order_id), trace=trace)
        tx.publish(ORDERS, event, cause=cause, sequence=1)
        box = BuyerSealed(
            occurred_at=event.occurred_at, order_id=event.order_id, channel=body.channel, customer_id=body.customer_id,
            points=body.points, key_id=key.key_id, sealed=sealed[-1],
        )  # fmt: skip
        tx.publish(INTAKE, box, cause=cause, sequence=1)
    ids = [event.order_id for _, event, _ in placed]
    await tx.db.execute(INSERT_SEALED, ids, [key.key_id] * len(ids), sealed)
    await timeline.write(tx, [(event, 1, event.order_id) for _, event, _ in placed], at)


async def _existing(tx: Tx, bodies: Sequence[OrderBody]) -> dict[tuple[str, str], tuple[UUID, bytes]]:
    if not bodies:
        return {}
    rows = await tx.db.fetch(EXISTING, [b.channel for b in bodies], [b.external_reference for b in bodies])
    return {(row["channel"], row["external_reference"]): (row["order_id"], row["fingerprint"]) for row in rows}


def _same(body: OrderBody, print_: bytes, known: dict[tuple[str, str], tuple[UUID, bytes]]) -> Placed | Problem:
    order_id, before = known[body.channel, body.external_reference]
    if hmac.compare_digest(before, print_):
        return Placed(order_id, new=False)
    return Problem(
        409, "Reference in use", f"{body.external_reference} of {body.channel} is order {order_id}, with another body",
        code="reference_in_use", errors=[{"field": "external_reference", "message": "used with another body"}],
    )  # fmt: skip


def fingerprint(body: BaseModel, key: str) -> bytes:
    """HMAC of the request's canonical form: it may hold personal data, so a plain hash would tell too much.

    What is absent does not count, so that a field added later changes no older request.
    """
    canonical: dict[str, Any] = body.model_dump(mode="json", exclude_none=True)
    return hmac.digest(key.encode(), orjson.dumps(canonical, option=orjson.OPT_SORT_KEYS), hashlib.sha256)


def _event(body: OrderBody, order_id: UUID, at: datetime) -> OrderPlaced:
    return OrderPlaced(
        occurred_at=at, order_id=order_id, channel=body.channel, external_reference=body.external_reference,
        customer_id=body.customer_id, currency=body.currency,
        lines=tuple(
            OrderLine(line=number, sku=line.sku, quantity=line.quantity, unit_price=line.unit_price)
            for number, line in enumerate(body.lines, 1)
        ),
        quote_id=body.quote_id, coupon=body.coupon, points=body.points, expected_total=body.expected_total,
        prepaid=isinstance(body.payment, PrepaidBody),
        destination=Destination(
            country=body.recipient.country, postal_area=postal_area(body.recipient.country, body.recipient.postal_code)
        ),
    )  # fmt: skip


def postal_area(country: str, postal_code: str | None) -> str | None:
    """The coarse part of a postal code: enough for the nearest warehouse, too little to find a person.

    Only what has the form of one: the field is free text, and what is published stays published.
    """
    code = (postal_code or "").strip().upper()
    if country == "GB":
        outward = BRITISH_CODE.fullmatch(code)
        return outward[1] if outward else None
    area = POSTAL_CODE.fullmatch(code)
    return area[1] if area else None
