"""What is stored: orders seen, the care they triggered, and messages queued. A fixed number of queries per batch.

Locks are taken in this order, sorted within each: orders, messages; so two batches cannot deadlock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.notify.decisions import Book, Heard, OrderCare, Rules
from shared.events.customer import BuyerIdentified
from shared.events.notify import CareTriggered
from shared.events.order import (
    OrderCancelled,
    OrderConfirmed,
    OrderExpired,
    OrderLinesCancelled,
    OrderPlaced,
    OrderRejected,
    OrderSettled,
    ParcelLate,
    ParcelLost,
    ParcelRefused,
)
from shared.postgres import Connection, Row, Tx, columns

UNKNOWN_BUYER_SECONDS = 60  # for the identification of a buyer that a message waits for

ORDERS = """
SELECT order_id, customer_id, version, ended, settled, spoiled, channel, reference FROM care_orders
WHERE order_id = ANY($1::uuid[]) ORDER BY order_id FOR NO KEY UPDATE
"""

TRIGGERS = """
SELECT clock_timestamp() AS now,
       ARRAY(SELECT (order_id, trigger) FROM care WHERE order_id = ANY($1::uuid[])) AS triggers -- as tuples
"""

# Locked, so that none of them is handed over while it is being stopped.
STOPPABLE = """
SELECT order_id, trigger FROM messages WHERE order_id = ANY($1::uuid[]) AND handing_over_at IS NULL
ORDER BY order_id, trigger FOR UPDATE
"""

SAVE_ORDERS = """
INSERT INTO care_orders AS o (order_id, customer_id, version, ended, settled, spoiled, channel, reference, skus)
SELECT n.*, coalesce(l.skus, '{}')
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bool[], $5::bool[], $6::bool[], $7::text[], $8::text[])
     AS n (order_id, customer_id, version, ended, settled, spoiled, channel, reference)
LEFT JOIN (SELECT order_id, array_agg(sku ORDER BY place) AS skus
           FROM unnest($9::uuid[], $10::text[]) WITH ORDINALITY AS lines (order_id, sku, place) GROUP BY order_id) AS l
          USING (order_id)
ON CONFLICT (order_id) DO UPDATE SET customer_id = excluded.customer_id, version = excluded.version,
    ended = excluded.ended, settled = excluded.settled, spoiled = excluded.spoiled, channel = excluded.channel,
    reference = excluded.reference, skus = CASE WHEN excluded.skus = '{}' THEN o.skus ELSE excluded.skus END
"""

SAVE_CARE = """
INSERT INTO care (order_id, trigger, customer_id, reason, occurred_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::timestamptz[])
"""

QUEUE = """
INSERT INTO messages (order_id, trigger, facts, cause_id, correlation_id, traceparent, due_at)
SELECT n.order_id, n.trigger, n.facts, n.cause_id, n.correlation_id, n.traceparent,
       now() + CASE WHEN o.customer_id IS NULL THEN $7 ELSE 0 END * interval '1 second'
FROM unnest($1::uuid[], $2::text[], $3::jsonb[], $4::uuid[], $5::text[], $6::text[])
     AS n (order_id, trigger, facts, cause_id, correlation_id, traceparent)
JOIN care_orders o ON o.order_id = n.order_id
"""

# Also of messages that have been tried in vain meanwhile. One that is being tried now is tried again: its attempt then
# counts as too slow, and cannot mark it.
BUYER_KNOWN = """
UPDATE messages SET due_at = least(due_at, now()) WHERE order_id = ANY($1::uuid[]) AND handing_over_at IS NULL
"""

STOP_CARE = """
UPDATE care SET state = 'failed', failure = n.reason
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS n (order_id, trigger, reason)
WHERE care.order_id = n.order_id AND care.trigger = n.trigger
"""

STOP_MESSAGES = """
DELETE FROM messages USING unnest($1::uuid[], $2::text[]) AS n (order_id, trigger)
WHERE messages.order_id = n.order_id AND messages.trigger = n.trigger
"""

LIST_CARE = """
SELECT c.id, c.order_id, c.trigger, coalesce(c.customer_id, o.customer_id) AS customer_id, c.reason, c.occurred_at,
       c.recorded_at, c.state, c.sent_at, c.failure
FROM care c JOIN care_orders o ON o.order_id = c.order_id
WHERE c.id < $1 AND ($2::uuid IS NULL OR c.order_id = $2) ORDER BY c.id DESC LIMIT $3
"""


@dataclass(frozen=True)
class Queued:
    """A message to queue: the care, what it says of the event that triggered it, and whence its outcome follows."""

    care: CareTriggered
    facts: Mapping[str, Any]
    cause_id: UUID
    correlation_id: str
    traceparent: str


async def load(tx: Tx, rules: Rules, events: Iterable[Heard]) -> Book:
    """The orders that these events concern, locked in id order."""
    wanted: set[UUID] = set()
    stopping: set[UUID] = set()
    for event in events:
        match event:
            case OrderPlaced() | OrderConfirmed() | ParcelLate() | BuyerIdentified():
                wanted.add(event.order_id)
            case (
                OrderRejected() | OrderExpired() | OrderCancelled() | OrderSettled() | ParcelLost() | ParcelRefused()
                | OrderLinesCancelled(reason="undeliverable")
            ):  # fmt: skip
                wanted.add(event.order_id)
                stopping.add(event.order_id)
            case _:
                pass
    orders = {row["order_id"]: _order(row) for row in await tx.db.fetch(ORDERS, sorted(wanted))} if wanted else {}
    found = await tx.db.fetchrow(TRIGGERS, list(orders))
    assert found is not None
    for order_id, trigger in found["triggers"]:
        orders[order_id].triggers.add(trigger)
    for row in await tx.db.fetch(STOPPABLE, sorted(stopping & orders.keys())) if stopping else ():
        orders[row["order_id"]].unsent.add(row["trigger"])
    return Book(found["now"], rules, orders)


def _order(row: Row) -> OrderCare:
    return OrderCare(**{name: value for name, value in row.items() if name != "order_id"})


async def save(tx: Tx, book: Book, queue: Sequence[Queued]) -> None:
    """Write back what ``load`` returned and decisions changed, and queue the messages unless mail is off."""
    if book.touched:
        ids = sorted(book.touched)
        names = ("customer_id", "version", "ended", "settled", "spoiled", "channel", "reference")
        lines = [(order_id, sku) for order_id, skus in book.skus.items() for sku in skus]
        await tx.db.execute(
            SAVE_ORDERS, ids, *([getattr(book.orders[order_id], name) for order_id in ids] for name in names),
            *(columns(lines) if lines else ([], [])),
        )  # fmt: skip
    if book.triggered:
        care = [(one.order_id, one.trigger, one.customer_id, one.reason, one.occurred_at) for one in book.triggered]
        await tx.db.execute(SAVE_CARE, *columns(care))
    if queue and book.rules.mail:
        rows = [
            (one.care.order_id, one.care.trigger, dict(one.facts), one.cause_id, one.correlation_id, one.traceparent)
            for one in queue
        ]
        await tx.db.execute(QUEUE, *columns(rows), UNKNOWN_BUYER_SECONDS)
    if book.identified:
        await tx.db.execute(BUYER_KNOWN, sorted(book.identified))
    if book.stopped:
        stopped = [(one.order_id, one.trigger, one.reason) for one in book.stopped]
        await tx.db.execute(STOP_CARE, *columns(stopped))
        await tx.db.execute(STOP_MESSAGES, *columns([one[:2] for one in stopped]))


async def list_care(db: Connection, before: int, order_id: UUID | None, limit: int) -> list[Row]:
    return await db.fetch(LIST_CARE, before, order_id, limit)
