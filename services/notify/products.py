"""What is known of products: an own copy of the master and of stock, and which of them goes with an order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from shared.events.inventory import ItemEvent, ItemRegistered, StockEvent, StockLevelChanged
from shared.messages import Batch
from shared.postgres import Connection, Tx

ProductEvent = ItemEvent | StockEvent

LEARN_ITEMS = """
INSERT INTO products (sku, name, category, active, item_version)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bool[], $5::bigint[])
ON CONFLICT (sku) DO UPDATE SET name = excluded.name, category = excluded.category, active = excluded.active,
    item_version = excluded.item_version
WHERE products.item_version < excluded.item_version
"""

LEARN_STOCK = """
INSERT INTO products (sku, available, stock_version) SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])
ON CONFLICT (sku) DO UPDATE SET available = excluded.available, stock_version = excluded.stock_version
WHERE products.stock_version < excluded.stock_version
"""

# Counted over the last orders that share a SKU with this one ($2), so that the work is bounded.
BOUGHT_TOGETHER = """
WITH near AS (SELECT skus FROM care_orders
              WHERE skus && $2::text[] AND order_id <> $1 AND NOT ended ORDER BY seen_at DESC LIMIT $3),
     counted AS (SELECT sku, count(*) AS orders FROM near, unnest(near.skus) AS sku GROUP BY sku)
SELECT p.name FROM counted JOIN products p USING (sku)
WHERE p.active AND p.available > 0 AND p.sku <> ALL ($2::text[]) ORDER BY counted.orders DESC, p.sku LIMIT 1
"""

# Counted over the last orders of all.
BOUGHT_IN_CATEGORY = """
WITH near AS (SELECT skus FROM care_orders WHERE order_id <> $1 AND NOT ended ORDER BY seen_at DESC LIMIT $3),
     counted AS (SELECT sku, count(*) AS orders FROM near, unnest(near.skus) AS sku GROUP BY sku)
SELECT p.name FROM counted JOIN products p USING (sku)
WHERE p.active AND p.available > 0 AND p.sku <> ALL ($2::text[])
AND p.category = ANY (ARRAY(SELECT DISTINCT category FROM products WHERE sku = ANY ($2::text[])))
ORDER BY counted.orders DESC, p.sku LIMIT 1
"""

NAMES = "SELECT sku, name FROM products WHERE sku = ANY($1::text[]) AND name IS NOT NULL"

SKUS = "SELECT order_id, skus FROM care_orders WHERE order_id = ANY($1::uuid[])"

LAST_ORDERS = 500


async def learn(tx: Tx, batch: Batch[ProductEvent]) -> None:
    """Of each SKU the latest of the batch counts; what is older than what is stored changes nothing."""
    items: dict[str, tuple[int, ItemRegistered]] = {}
    stock: dict[str, tuple[int, StockLevelChanged]] = {}
    for message in batch:
        match message.event:
            case ItemRegistered() as event if items.get(event.sku, (0,))[0] < message.sequence:
                items[event.sku] = (message.sequence, event)
            case StockLevelChanged() as event if stock.get(event.sku, (0,))[0] < message.sequence:
                stock[event.sku] = (message.sequence, event)
            case _:
                pass
    if items:
        known = [items[sku] for sku in sorted(items)]
        await tx.db.execute(
            LEARN_ITEMS, [one.sku for _, one in known], [one.name for _, one in known],
            [one.category for _, one in known], [one.active for _, one in known], [version for version, _ in known],
        )  # fmt: skip
    if stock:
        levels = [stock[sku] for sku in sorted(stock)]
        await tx.db.execute(
            LEARN_STOCK, [one.sku for _, one in levels], [one.available for _, one in levels],
            [version for version, _ in levels],
        )  # fmt: skip


async def skus(db: Connection, orders: Sequence[UUID]) -> dict[UUID, list[str]]:
    """What each order is for, at most 100 SKUs of it."""
    return {row["order_id"]: row["skus"] for row in await db.fetch(SKUS, orders)}


async def related(db: Connection, order_id: UUID, own: Sequence[str]) -> str | None:
    """The name of one product that goes with an order of these SKUs, can be had, and is not in it: the one most often
    bought together with them, else the one most bought in their categories."""
    together: str | None = await db.fetchval(BOUGHT_TOGETHER, order_id, own, LAST_ORDERS)
    return together or await db.fetchval(BOUGHT_IN_CATEGORY, order_id, own, LAST_ORDERS)


async def names(db: Connection, wanted: Iterable[str]) -> dict[str, str]:
    """What these products are called; a SKU stands for a name not known yet."""
    skus = sorted({*wanted})
    return dict(zip(skus, skus, strict=True)) | {row["sku"]: row["name"] for row in await db.fetch(NAMES, skus)}
