"""What is stored of the product master, of warehouses and of movements: queries beside ``store``'s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from shared.events.inventory import ItemRegistered
from shared.postgres import Connection, Row, Tx

if TYPE_CHECKING:
    from services.inventory.commands import Movement

LOCK = """
SELECT sku, name, category, supplier, unit, weight, tax_class, active, unit_cost, cost_currency, version
FROM items WHERE sku = ANY($1::text[]) ORDER BY sku FOR NO KEY UPDATE
"""

# One registration at a time: a product that is not there yet has no row to lock.
LOCK_MASTER = "SELECT pg_advisory_xact_lock(hashtext('isthmus.items'))"

SAVE_ITEMS = """
INSERT INTO items (sku, name, category, supplier, unit, weight, tax_class, active, version)
SELECT n.*, 1
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::text[], $8::bool[]) AS n
ON CONFLICT (sku) DO UPDATE SET name = excluded.name, category = excluded.category, supplier = excluded.supplier,
    unit = excluded.unit, weight = excluded.weight, tax_class = excluded.tax_class, active = excluded.active,
    version = items.version + 1
"""

SAVE_COSTS = """
UPDATE items SET unit_cost = n.cost, cost_currency = n.currency, version = n.version
FROM unnest($1::text[], $2::numeric[], $3::text[], $4::bigint[]) AS n (sku, cost, currency, version)
WHERE items.sku = n.sku
"""

SAVE_MOVEMENTS = """
INSERT INTO movements (sku, warehouse, quantity, kind, reason, actor, occurred_at)
SELECT sku, warehouse, quantity, $1, reason, $2, $3
FROM unnest($4::text[], $5::text[], $6::bigint[], $7::text[]) AS n (sku, warehouse, quantity, reason)
"""

SAVE_WAREHOUSE = """
INSERT INTO warehouses (code, name, country, priority) VALUES ($1, $2, $3, $4)
ON CONFLICT (code) DO UPDATE SET name = excluded.name, country = excluded.country, priority = excluded.priority
"""

LIST_WAREHOUSES = "SELECT code, name, country, priority FROM warehouses ORDER BY priority, code"

GET_ITEM = """
SELECT sku, name, category, supplier, unit, weight, tax_class, active FROM items WHERE sku = $1
"""

LIST_ITEMS = """
SELECT sku, name, category, supplier, unit, weight, tax_class, active FROM items WHERE sku > $1 ORDER BY sku LIMIT $2
"""

LIST_STOCK = """
SELECT i.sku, coalesce(jsonb_agg(jsonb_build_object('warehouse', s.warehouse, 'on_hand', s.on_hand,
       'reserved', s.reserved, 'available', s.on_hand - s.reserved) ORDER BY s.warehouse)
       FILTER (WHERE s.sku IS NOT NULL), '[]') AS levels, coalesce(sum(s.on_hand - s.reserved), 0)::bigint AS available
FROM items i LEFT JOIN stock s USING (sku) WHERE i.sku > $1 AND ($3::text[] IS NULL OR i.sku = ANY($3))
GROUP BY i.sku ORDER BY i.sku LIMIT $2
"""

LIST_MOVEMENTS = """
SELECT id, sku, warehouse, quantity, kind, reason, actor, occurred_at, recorded_at
FROM movements WHERE sku = $1 AND id > $2 ORDER BY id LIMIT $3
"""

LIST_LAST_MOVEMENTS = """
SELECT id, sku, warehouse, quantity, kind, reason, actor, occurred_at, recorded_at
FROM movements WHERE sku = $1 AND id < $2 ORDER BY id DESC LIMIT $3
"""


@dataclass
class Item:
    """A product as it is stored, locked for a change."""

    sku: str
    name: str
    category: str | None
    supplier: str | None
    unit: str
    weight: int | None
    tax_class: str
    active: bool
    unit_cost: Decimal | None
    cost_currency: str | None
    version: int

    def differs(self, item: ItemRegistered) -> bool:
        wanted = item.model_dump(exclude={"occurred_at"})
        return any(getattr(self, name) != value for name, value in wanted.items())


async def lock_master(tx: Tx) -> None:
    await tx.db.execute(LOCK_MASTER)


async def lock(tx: Tx, skus: Sequence[str]) -> dict[str, Item]:
    return {row["sku"]: Item(**row) for row in await tx.db.fetch(LOCK, sorted(set(skus)))}


async def save_items(tx: Tx, items: Sequence[ItemRegistered]) -> None:
    if items:
        columns: list[Any] = [
            [getattr(item, name) for item in items]
            for name in ("sku", "name", "category", "supplier", "unit", "weight", "tax_class", "active")
        ]
        await tx.db.execute(SAVE_ITEMS, *columns)


async def save_costs(tx: Tx, items: Sequence[Item]) -> None:
    await tx.db.execute(
        SAVE_COSTS, [item.sku for item in items], [item.unit_cost for item in items],
        [item.cost_currency for item in items], [item.version for item in items],
    )  # fmt: skip


async def save_movements(tx: Tx, kind: str, movements: Sequence[Movement], *, actor: str, at: datetime) -> None:
    await tx.db.execute(
        SAVE_MOVEMENTS, kind, actor, at, [one.sku for one in movements], [one.warehouse for one in movements],
        [one.quantity for one in movements], [one.reason for one in movements],
    )  # fmt: skip


async def save_warehouse(tx: Tx, code: str, name: str, country: str, priority: int) -> None:
    await tx.db.execute(SAVE_WAREHOUSE, code, name, country, priority)


async def list_warehouses(db: Connection) -> list[Row]:
    return await db.fetch(LIST_WAREHOUSES)


async def get_item(db: Connection, sku: str) -> Row | None:
    return await db.fetchrow(GET_ITEM, sku)


async def list_items(db: Connection, after: str, limit: int) -> list[Row]:
    return await db.fetch(LIST_ITEMS, after, limit)


async def list_stock(db: Connection, after: str, limit: int, skus: Sequence[str] | None) -> list[Row]:
    return await db.fetch(LIST_STOCK, after, limit, skus)


async def list_movements(db: Connection, sku: str, after: int, limit: int) -> list[Row]:
    return await db.fetch(LIST_MOVEMENTS, sku, after, limit)


async def list_last_movements(db: Connection, sku: str, before: int, limit: int) -> list[Row]:
    return await db.fetch(LIST_LAST_MOVEMENTS, sku, before, limit)
