"""What is held for orders, for those who compare."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from shared.events.order import HeldUnits
from shared.holdings import Holding
from shared.postgres import Connection

HELD = """
SELECT order_id, sku, warehouse, quantity FROM hold_lines WHERE order_id = ANY($1::uuid[])
ORDER BY order_id, sku, warehouse
"""


async def load(db: Connection, order_ids: Sequence[UUID]) -> list[Holding]:
    """The units held for these orders; those that have none are absent."""
    held: dict[UUID, Holding] = {}
    for row in await db.fetch(HELD, order_ids):
        one = held.setdefault(row["order_id"], Holding(order_id=row["order_id"]))
        one.goods.append(HeldUnits(sku=row["sku"], warehouse=row["warehouse"], quantity=row["quantity"]))
    return list(held.values())
