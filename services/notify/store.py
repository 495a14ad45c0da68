"""What is stored: orders seen and the care they triggered. One function per query; a fixed number per batch."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from services.notify.decisions import Book, OrderCare
from shared.events.order import OrderCancelled, OrderConfirmed, OrderEvent, OrderExpired, OrderPlaced, OrderRejected
from shared.postgres import Connection, Row, Tx

ORDERS = """
SELECT order_id, customer_id, version, ended FROM care_orders WHERE order_id = ANY($1::uuid[])
ORDER BY order_id FOR NO KEY UPDATE
"""

TRIGGERS = "SELECT order_id, trigger FROM care WHERE order_id = ANY($1::uuid[])"

SAVE_ORDERS = """
INSERT INTO care_orders (order_id, customer_id, version, ended)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::boolean[])
ON CONFLICT (order_id) DO UPDATE SET customer_id = excluded.customer_id, version = excluded.version,
    ended = excluded.ended
"""

SAVE_CARE = """
INSERT INTO care (order_id, trigger, customer_id, reason, occurred_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::timestamptz[])
"""

LIST_CARE = """
SELECT id, order_id, trigger, customer_id, reason, occurred_at, recorded_at FROM care
WHERE id < $1 AND ($2::uuid IS NULL OR order_id = $2) ORDER BY id DESC LIMIT $3
"""


async def load(tx: Tx, events: Iterable[OrderEvent]) -> Book:
    """The orders that these events concern, locked in id order."""
    wanted: set[UUID] = set()
    for event in events:
        match event:
            case OrderPlaced() | OrderConfirmed() | OrderRejected() | OrderExpired() | OrderCancelled():
                wanted.add(event.order_id)
            case _:
                pass
    if not wanted:
        return Book()
    rows = await tx.db.fetch(ORDERS, sorted(wanted))
    orders = {row["order_id"]: OrderCare(row["customer_id"], row["version"], row["ended"]) for row in rows}
    for row in await tx.db.fetch(TRIGGERS, list(orders)):
        orders[row["order_id"]].triggers.add(row["trigger"])
    return Book(orders)


async def save(tx: Tx, book: Book) -> None:
    """Write back what ``load`` returned and decisions changed."""
    if book.touched:
        orders = [(order_id, book.orders[order_id]) for order_id in sorted(book.touched)]
        await tx.db.execute(
            SAVE_ORDERS, [order_id for order_id, _ in orders], [order.customer_id for _, order in orders],
            [order.version for _, order in orders], [order.ended for _, order in orders],
        )  # fmt: skip
    if book.triggered:
        care = [(one.order_id, one.trigger, one.customer_id, one.reason, one.occurred_at) for one in book.triggered]
        await tx.db.execute(SAVE_CARE, *(list(column) for column in zip(*care, strict=True)))


async def list_care(db: Connection, before: int, order_id: UUID | None, limit: int) -> list[Row]:
    return await db.fetch(LIST_CARE, before, order_id, limit)
