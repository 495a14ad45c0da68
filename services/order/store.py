"""What is stored: orders, their payment and refunds, their timeline. A batch needs a fixed number of queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

import orjson

from services.order import timeline
from services.order.decisions import finish
from services.order.settlement import store as ledger
from services.order.settlement.decisions import Posting, post
from services.order.shipping import store as shipping
from services.order.signals import signals
from services.order.state import ENDED, Cancellation, Order, Payment, Sale
from shared.events.order import OrderEvent, PaymentRefunded, RefundRequested
from shared.events.pricing import PricedLine
from shared.messages import Cause
from shared.postgres import Row, Tx, columns
from shared.topics import ORDERS
from shared.tracing import Trace

LOCK = "SELECT FROM orders WHERE order_id = ANY($1::uuid[]) ORDER BY order_id FOR NO KEY UPDATE"

LOAD = """
SELECT o.order_id, o.channel, o.currency, o.expected_total, o.prepaid, o.state, o.version,
       o.customer_id, o.recipient_id, o.identified, o.held, o.priced_lines IS NOT NULL AS priced,
       o.total, o.cancelled_lines, o.cancelled_amount, o.reason, CASE WHEN $2 THEN o.priced_lines END AS priced_lines,
       p.payment_id, p.amount, p.state AS payment_state, p.provider, p.captured, p.refunded, p.provider_reference,
       p.redirect_url, p.closing, o.traceparent, o.deadline_at, o.fulfilment, o.channel_fee, o.allocations, o.sale,
       o.point_value, (o.request ->> 'points')::int AS points, o.cancellation, o.settled, o.points_settled
FROM orders o LEFT JOIN payments p USING (order_id)
WHERE o.order_id = ANY($1::uuid[])
"""

OPEN_REFUNDS = """
SELECT order_id, refund_id, amount FROM refunds WHERE order_id = ANY($1::uuid[]) AND state = 'requested'
"""

SAVE_ORDERS = """
UPDATE orders AS o
SET state = n.state, version = n.version, customer_id = n.customer_id, recipient_id = n.recipient_id,
    identified = n.identified, held = n.held, total = n.total, reason = n.reason,
    priced_lines = coalesce(n.priced_lines::jsonb, o.priced_lines), cancelled_lines = n.cancelled_lines,
    cancelled_amount = n.cancelled_amount, allocations = coalesce(n.allocations, o.allocations), sale = n.sale,
    point_value = n.point_value, cancellation = n.cancellation, settled = n.settled,
    points_settled = n.points_settled, changed_at = now(),
    deadline_at = CASE WHEN n.state NOT IN ('placed', 'paying') THEN NULL
                       WHEN n.extend IS NULL THEN o.deadline_at ELSE now() + n.extend * interval '1 second' END
FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::uuid[], $5::uuid[], $6::bool[], $7::bool[], $8::numeric[],
            $9::text[], $10::text[], $11::jsonb[], $12::numeric[], $13::int[], $14::jsonb[], $15::jsonb[],
            $16::numeric[], $17::jsonb[], $18::bool[], $19::bool[])
     AS n (order_id, state, version, customer_id, recipient_id, identified, held, total,
           reason, priced_lines, cancelled_lines, cancelled_amount, extend, allocations, sale, point_value,
           cancellation, settled, points_settled)
WHERE o.order_id = n.order_id
"""

SAVE_PAYMENTS = """
INSERT INTO payments AS p (payment_id, order_id, provider, token, amount, currency, state, captured, refunded,
                           provider_reference, redirect_url, closing, due_at)
SELECT n.payment_id, n.order_id, n.provider, o.payment_token, n.amount, o.currency, n.state, n.captured, n.refunded,
       n.provider_reference, n.redirect_url, n.closing, CASE WHEN n.call THEN now() END
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::numeric[], $5::text[], $6::numeric[], $7::numeric[], $8::text[],
            $9::text[], $10::bool[], $11::bool[])
     AS n (payment_id, order_id, provider, amount, state, captured, refunded, provider_reference, redirect_url,
           closing, call)
JOIN orders o USING (order_id)
ON CONFLICT (payment_id) DO UPDATE
SET state = excluded.state, captured = excluded.captured, refunded = excluded.refunded, closing = excluded.closing,
    provider_reference = excluded.provider_reference, redirect_url = excluded.redirect_url,
    due_at = CASE WHEN excluded.state IN ('captured', 'declined', 'cancelled') THEN NULL
                  WHEN excluded.closing AND NOT p.closing THEN now() ELSE p.due_at END
"""

REQUEST_REFUNDS = """
INSERT INTO refunds (refund_id, payment_id, order_id, amount, currency, reason, state, due_at)
SELECT n.refund_id, n.payment_id, n.order_id, n.amount, n.currency, n.reason, 'requested', now()
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::numeric[], $5::text[], $6::text[])
     AS n (refund_id, payment_id, order_id, amount, currency, reason)
ON CONFLICT DO NOTHING
"""

FINISH_REFUNDS = "UPDATE refunds SET state = 'refunded', due_at = NULL WHERE refund_id = ANY($1::uuid[])"

DROP_SEALED = "DELETE FROM sealed_buyers WHERE order_id = ANY($1::uuid[])"

OVERDUE = """
SELECT order_id FROM orders WHERE deadline_at <= $1 AND partition = ANY($2::smallint[])
ORDER BY deadline_at LIMIT $3
"""

UNANSWERED = """
SELECT order_id FROM orders WHERE settled AND state = 'confirmed' AND changed_at < now() - interval '5 minutes'
ORDER BY changed_at LIMIT $1
"""

ORDERS_OF_PAYMENTS = "SELECT payment_id, order_id FROM payments WHERE payment_id = ANY($1::uuid[])"


WITH_PARCELS = ("confirmed", "cancelled", "closed")


@dataclass
class Orders:
    """Orders under lock, and what happened to them in this transaction."""

    by_id: dict[UUID, Order]
    traces: dict[UUID, Trace] = field(default_factory=dict[UUID, Trace])
    deadlines: dict[UUID, datetime | None] = field(default_factory=dict[UUID, "datetime | None"])
    sealed: set[UUID] = field(default_factory=set[UUID])  # their buyer's data may still lie sealed
    heard: set[UUID] = field(default_factory=set[UUID])  # their legs changed
    events: list[tuple[OrderEvent, int, UUID]] = field(default_factory=list[tuple[OrderEvent, int, UUID]])
    extend: dict[UUID, int] = field(default_factory=dict[UUID, int])  # new deadline, in seconds from now
    postings: list[tuple[UUID, Posting]] = field(default_factory=list[tuple[UUID, Posting]])
    parcels: dict[UUID, dict[int, tuple[str, str | None]]] = field(
        default_factory=dict[UUID, dict[int, tuple[str, "str | None"]]]
    )  # as they were loaded

    def cause(self, order_id: UUID, why: str) -> Cause:
        """A cause that no message is: a timer, or the provider's word. The trace of the order's request goes on."""
        return Cause(id=uuid5(order_id, why), correlation_id=str(order_id), trace=self.traces[order_id])

    def happen(self, tx: Tx, order: Order, events: Iterable[OrderEvent], cause: Cause, at: datetime) -> None:
        """Apply, publish, book and note down what was decided, and what follows from it at business time ``at``."""
        pending = list(events) or finish(order, at)
        while pending:
            for event in pending:
                booked = post(order, event)
                sequence = order.evolve(event)
                id_ = tx.publish(ORDERS, event, cause=cause, sequence=sequence)
                self.events.append((event, sequence, cause.id))
                self.book(id_, booked)
            pending = finish(order, at)

    def book(self, cause: UUID, postings: Iterable[Posting]) -> None:
        """Note down entries that an event has made: the order's own, or one of another service."""
        self.postings += [(cause, posting) for posting in postings]


async def load(tx: Tx, order_ids: Iterable[UUID], *, with_lines: bool = False) -> Orders:
    """Lock orders in id order, so that two batches cannot deadlock. Unknown ids are absent from the result."""
    ids = sorted(set(order_ids))
    if not ids:
        return Orders({})
    await tx.db.execute(LOCK, ids)
    # Read after the lock, in a statement of its own: joined rows would be those of before the wait for it.
    rows = await tx.db.fetch(LOAD, ids, with_lines)
    orders = {row["order_id"]: _order(row) for row in rows}
    paid = [order.order_id for order in orders.values() if order.payment and order.payment.captured]
    if paid:
        for row in await tx.db.fetch(OPEN_REFUNDS, paid):
            payment = orders[row["order_id"]].payment
            assert payment is not None
            payment.refunds[row["refund_id"]] = row["amount"]
    shipped = {order.order_id: order for order in orders.values() if order.state in WITH_PARCELS}
    return Orders(
        orders,
        {row["order_id"]: Trace.parse(row["traceparent"]) for row in rows},
        {row["order_id"]: row["deadline_at"] for row in rows},
        {order.order_id for order in orders.values() if not (order.identified or order.state in ENDED)},
        parcels=await shipping.load(tx, shipped) if shipped else {},
    )


def _order(row: Row) -> Order:
    payment = None
    if row["payment_id"] is not None:
        payment = Payment(
            row["payment_id"], row["amount"], row["payment_state"], row["provider"], row["captured"], row["refunded"],
            provider_reference=row["provider_reference"], redirect_url=row["redirect_url"], closing=row["closing"],
        )  # fmt: skip
    lines, sale, cancellation = row["priced_lines"], row["sale"], row["cancellation"]
    plain = (
        "order_id", "channel", "currency", "expected_total", "prepaid", "channel_fee", "fulfilment", "points", "state",
        "version", "customer_id", "recipient_id", "identified", "held", "priced", "total", "point_value",
        "cancelled_amount", "reason", "allocations", "settled", "points_settled",
    )  # fmt: skip
    return Order(
        **{name: row[name] for name in plain},
        sale=Sale(**{name: Decimal(amount) for name, amount in sale.items()}) if sale is not None else None,
        priced_lines=[PricedLine.model_validate(line) for line in lines] if lines is not None else None,
        cancelled_lines={int(line): units for line, units in row["cancelled_lines"].items()},
        payment=payment,
        cancellation=_cancellation(cancellation) if cancellation is not None else None,
    )


def _cancellation(stored: Mapping[str, Any]) -> Cancellation:
    units: Mapping[str, int] | None = stored["units"]
    of_lines = {int(line): number for line, number in units.items()} if units is not None else None
    return Cancellation(of_lines, stored["reason"], tuple(stored["parcels"]), stored["too_late"])


async def save(tx: Tx, orders: Orders) -> None:
    """Write back what ``load`` returned and decisions changed, and wake those who wait for it after the commit."""
    touched = orders.heard | {event.order_id for event, _, _ in orders.events} | orders.extend.keys()
    changed = [orders.by_id[order_id] for order_id in sorted(touched)]
    if not changed:
        return
    await _save_orders(tx, changed, orders)
    await _save_payments(tx, changed)
    await _save_events(tx, orders.events)
    await ledger.append(tx, orders.postings)
    if await shipping.save(tx, changed, orders.parcels):
        tx.after_commit(signals.parcels_due)
    opened = [order for order in changed if order.order_id in orders.sealed]
    done = [order.order_id for order in opened if order.identified or order.state in ENDED]
    if done:
        await tx.db.execute(DROP_SEALED, done)
    settled = [order.order_id for order in changed if order.state not in ("placed", "paying")]
    tx.after_commit(lambda: signals.settled(settled))
    if any(order.payment and (order.payment.open or order.payment.refunds) for order in changed):
        tx.after_commit(signals.payments_due)


async def _save_orders(tx: Tx, changed: Sequence[Order], orders: Orders) -> None:
    def lines(order: Order) -> str | None:
        if order.order_id not in orders.heard or order.priced_lines is None:
            return None
        # As text: a list inside an array would be taken for another dimension of it.
        return orjson.dumps([line.model_dump(mode="json") for line in order.priced_lines]).decode()

    def waits(order: Order) -> dict[str, Any] | None:
        if (waiting := order.cancellation) is None:
            return None
        units = {str(line): number for line, number in waiting.units.items()} if waiting.units is not None else None
        return {"units": units, "reason": waiting.reason, "parcels": waiting.parcels, "too_late": waiting.too_late}

    rows = [
        (
            order.order_id, order.state, order.version, order.customer_id, order.recipient_id, order.identified,
            order.held, order.total, order.reason, lines(order),
            {str(line): units for line, units in order.cancelled_lines.items()}, order.cancelled_amount,
            orders.extend.get(order.order_id), order.allocations if order.order_id in orders.heard else None,
            {name: str(amount) for name, amount in vars(order.sale).items()} if order.sale else None,
            order.point_value, waits(order), order.settled, order.points_settled,
        )
        for order in changed
    ]  # fmt: skip
    await tx.db.execute(SAVE_ORDERS, *columns(rows))


async def _save_payments(tx: Tx, changed: Sequence[Order]) -> None:
    rows = [
        (
            payment.payment_id, order.order_id, payment.provider, payment.amount, payment.state, payment.captured,
            payment.refunded, payment.provider_reference, payment.redirect_url, payment.closing, payment.open,
        )
        for order in changed
        if (payment := order.payment) is not None
    ]  # fmt: skip
    if rows:
        await tx.db.execute(SAVE_PAYMENTS, *columns(rows))


async def _save_events(tx: Tx, events: Sequence[tuple[OrderEvent, int, UUID]]) -> None:
    requested = [event for event, _, _ in events if isinstance(event, RefundRequested)]
    if requested:
        rows = [(e.refund_id, e.payment_id, e.order_id, e.amount, e.currency, e.reason) for e in requested]
        await tx.db.execute(REQUEST_REFUNDS, *columns(rows))
    finished = [event.refund_id for event, _, _ in events if isinstance(event, PaymentRefunded)]
    if finished:
        await tx.db.execute(FINISH_REFUNDS, finished)
    await timeline.write(tx, events)


async def unanswered(tx: Tx, limit: int) -> list[UUID]:
    """Orders that were settled minutes ago and have not been closed."""
    return [row["order_id"] for row in await tx.db.fetch(UNANSWERED, limit)]


async def overdue(tx: Tx, until: datetime, partitions: Sequence[int], limit: int) -> list[UUID]:
    return [row["order_id"] for row in await tx.db.fetch(OVERDUE, until, partitions, limit)]


async def orders_of_payments(tx: Tx, payment_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """By payment; those that nobody knows are absent."""
    rows = await tx.db.fetch(ORDERS_OF_PAYMENTS, payment_ids)
    return {row["payment_id"]: row["order_id"] for row in rows}
