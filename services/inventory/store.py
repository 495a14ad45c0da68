"""What is stored: stock, holds and the product master. One function per query; each batch needs a fixed number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from services.inventory.decisions import Cost, Hold, Level, Stock, Warehouse, not_held
from shared.events.inventory import StockIssued
from shared.events.order import (
    OrderCancelled,
    OrderEvent,
    OrderExpired,
    OrderLinesCancelled,
    OrderPlaced,
    OrderRejected,
    OrderRestated,
    ParcelShipped,
)
from shared.postgres import Tx, columns

HOLDS = "SELECT order_id, state, version FROM holds WHERE order_id = ANY($1::uuid[]) ORDER BY order_id FOR UPDATE"

# Several answers in one, each a list of tuples.
OF_HOLDS = """
SELECT ARRAY(SELECT (order_id, sku, warehouse, quantity) FROM hold_lines WHERE order_id = ANY($1::uuid[])) AS lines,
       ARRAY(SELECT (order_id, parcel, units) FROM hold_issues WHERE order_id = ANY($1::uuid[])) AS issues
"""

LOCK_ITEMS = """
SELECT sku, stock_version, unit_cost, cost_currency FROM items WHERE sku = ANY($1::text[])
ORDER BY sku FOR NO KEY UPDATE
"""

LEVELS = """
SELECT ARRAY(SELECT (sku, warehouse, on_hand, reserved) FROM stock WHERE sku = ANY($1::text[])) AS levels,
       ARRAY(SELECT (code, country, priority) FROM warehouses) AS warehouses
"""

SAVE_LEVELS = """
WITH versions AS (
    UPDATE items SET stock_version = n.version FROM unnest($1::text[], $2::bigint[]) AS n (sku, version)
    WHERE items.sku = n.sku
)
INSERT INTO stock (sku, warehouse, on_hand, reserved)
SELECT * FROM unnest($3::text[], $4::text[], $5::bigint[], $6::bigint[])
ON CONFLICT (sku, warehouse) DO UPDATE SET on_hand = excluded.on_hand, reserved = excluded.reserved
"""

CLEAR_HOLD_LINES = "DELETE FROM hold_lines WHERE order_id = ANY($1::uuid[])"

SAVE_HOLDS = """
WITH saved AS (
    INSERT INTO holds (order_id, state, version) SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[])
    ON CONFLICT (order_id) DO UPDATE SET state = excluded.state, version = excluded.version
)
INSERT INTO hold_lines (order_id, sku, warehouse, quantity)
SELECT * FROM unnest($4::uuid[], $5::text[], $6::text[], $7::bigint[])
"""

SAVE_HOLD_ISSUES = """
INSERT INTO hold_issues (order_id, parcel, units) SELECT * FROM unnest($1::uuid[], $2::int[], $3::bigint[])
"""

SAVE_ISSUES = """
INSERT INTO movements (sku, warehouse, quantity, kind, reason, actor, occurred_at)
SELECT sku, warehouse, -quantity, 'issue', reason, 'isthmus', occurred_at
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::timestamptz[])
     AS n (sku, warehouse, quantity, reason, occurred_at)
"""


async def load(tx: Tx, events: Iterable[OrderEvent]) -> Stock:
    """The stock that these events can touch, locked in SKU order so that two batches cannot deadlock."""
    orders: set[UUID] = set()
    skus: set[str] = set()
    for event in events:
        match event:
            case OrderPlaced(order_id=order, lines=lines):
                orders.add(order)
                skus.update(line.sku for line in lines)
            case OrderRejected(order_id=order) | OrderCancelled(order_id=order) | OrderExpired(order_id=order):
                orders.add(order)
            case OrderLinesCancelled(order_id=order) | ParcelShipped(order_id=order):
                orders.add(order)
            case OrderRestated(order_id=order, goods=goods) if goods is not None:
                orders.add(order)
                skus.update(one.sku for one in goods)
            case _:
                pass
    holds = {row["order_id"]: Hold(row["state"], row["version"]) for row in await tx.db.fetch(HOLDS, list(orders))}
    if holds:
        found = await tx.db.fetchrow(OF_HOLDS, list(holds))
        assert found is not None
        for order_id, sku, warehouse, quantity in found["lines"]:
            holds[order_id].allocated[sku, warehouse] = quantity
            skus.add(sku)
        for order_id, parcel, units in found["issues"]:
            holds[order_id].issued[parcel] = units
    stock = await lock(tx, skus)
    stock.holds = holds
    return stock


async def lock(tx: Tx, skus: Iterable[str]) -> Stock:
    """The stock of these SKUs, locked; unknown ones are absent from ``versions``."""
    wanted = sorted(set(skus))
    if not wanted:
        return Stock()
    items = await tx.db.fetch(LOCK_ITEMS, wanted)
    versions = {row["sku"]: row["stock_version"] for row in items}
    costs = {row["sku"]: Cost(row["unit_cost"], row["cost_currency"]) for row in items}
    levels: dict[str, dict[str, Level]] = {}
    found = await tx.db.fetchrow(LEVELS, wanted)  # after the lock: a statement of its own sees what that waited for
    assert found is not None
    for sku, warehouse, on_hand, reserved in found["levels"]:
        levels.setdefault(sku, {})[warehouse] = Level(on_hand, reserved)
    return Stock([Warehouse(*row) for row in found["warehouses"]], versions, levels, costs)


async def save(tx: Tx, stock: Stock) -> None:
    """Write back what ``load`` or ``lock`` returned and decisions changed."""
    if stock.touched_skus:
        skus = sorted(stock.touched_skus)
        rows = [
            (sku, warehouse, level.on_hand, level.reserved)
            for sku in skus
            for warehouse, level in sorted(stock.levels.get(sku, {}).items())
        ]
        await tx.db.execute(SAVE_LEVELS, skus, [stock.versions[sku] for sku in skus], *columns(rows))
    if stock.touched_orders:
        await _save_holds(tx, [(order, stock.holds[order]) for order in sorted(stock.touched_orders)])


async def _save_holds(tx: Tx, holds: Sequence[tuple[UUID, Hold]]) -> None:
    orders = [order for order, _ in holds]
    lines = [(order, *place, quantity) for order, hold in holds for place, quantity in hold.allocated.items()]
    known = [order for order, hold in holds if hold.version > 1]
    if known:
        await tx.db.execute(CLEAR_HOLD_LINES, known)
    await tx.db.execute(
        SAVE_HOLDS, orders, [hold.state for _, hold in holds], [hold.version for _, hold in holds],
        *(columns(lines) if lines else ([], [], [], [])),
    )  # fmt: skip


async def save_issues(tx: Tx, issues: Sequence[tuple[ParcelShipped, StockIssued]]) -> None:
    """What left the warehouses with these parcels, after ``save``: each parcel, and a movement per SKU."""
    if issues:
        events = [event for _, event in issues]
        await tx.db.execute(
            SAVE_HOLD_ISSUES, [event.order_id for event in events], [event.parcel for event in events],
            [sum(line.quantity for line in event.lines) for event in events],
        )  # fmt: skip
    moved = [
        (line.sku, line.warehouse, line.quantity, _reason(event, short.get(line.sku, 0)), event.occurred_at)
        for shipped, event in issues
        for short in [not_held(shipped, event)]
        for line in event.lines
    ]
    if moved:
        await tx.db.execute(SAVE_ISSUES, *columns(moved))


def _reason(event: StockIssued, short: int) -> str:
    return f"parcel {event.parcel} of order {event.order_id}" + (f"; {short} more shipped than held" if short else "")
