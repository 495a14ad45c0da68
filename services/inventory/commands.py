"""What is commanded over HTTP: the product master, receipts and adjustments; each returns what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from services.inventory import master, store
from services.inventory.decisions import Stock
from services.inventory.handlers import publish_levels
from shared.events.inventory import ItemCostChanged, ItemRegistered
from shared.messages import Cause
from shared.postgres import Tx
from shared.problems import Problem
from shared.topics import ITEMS


@dataclass(frozen=True)
class Movement:
    """Units of a SKU that come into a warehouse or leave it; ``unit_cost`` only where they were bought."""

    sku: str
    warehouse: str
    quantity: int
    unit_cost: Decimal | None = None
    currency: str | None = None
    reason: str | None = None


async def register_items(tx: Tx, items: Sequence[ItemRegistered], cause: Cause) -> int:
    """Create or replace products; those that are already so stay untouched. Returns how many changed."""
    await master.lock_master(tx)
    known = await master.lock(tx, [item.sku for item in items])
    changed = [item for item in items if known.get(item.sku) is None or known[item.sku].differs(item)]
    for item in changed:
        sequence = known[item.sku].version + 1 if item.sku in known else 1
        tx.publish(ITEMS, item, cause=cause, sequence=sequence)
    await master.save_items(tx, changed)
    return len(changed)


async def move_stock(
    tx: Tx, kind: str, movements: Sequence[Movement], *, actor: str, at: datetime, cause: Cause
) -> Stock:
    """Book receipts or adjustments, all or none. Raises 422 for what is unknown, 409 for what would break a hold."""
    stock = await store.lock(tx, [movement.sku for movement in movements])
    _check_known(stock, movements)
    await _average_costs(tx, stock, movements, at, cause)
    for movement in movements:
        stock.move(movement.sku, movement.warehouse, movement.quantity)
    for number, movement in enumerate(movements):
        level = stock.levels[movement.sku][movement.warehouse]
        if level.on_hand < level.reserved:
            raise Problem(
                409, "Not enough stock",
                f"{movement.sku} in {movement.warehouse}: {level.on_hand} would be left, {level.reserved} are held",
                code="not_enough_stock", errors=[{"field": f"lines.{number}.quantity", "message": "leaves too little"}],
            )  # fmt: skip
    publish_levels(tx, stock, at, cause=cause)
    await store.save(tx, stock)
    await master.save_movements(tx, kind, movements, actor=actor, at=at)
    return stock


def _check_known(stock: Stock, movements: Sequence[Movement]) -> None:
    codes = {warehouse.code for warehouse in stock.warehouses}
    errors = [
        {"field": f"lines.{number}.sku", "message": f"unknown SKU {movement.sku}"}
        for number, movement in enumerate(movements)
        if movement.sku not in stock.versions
    ]
    if not errors:  # without a known SKU there is no stock, and no warehouses were read
        errors = [
            {"field": f"lines.{number}.warehouse", "message": f"unknown warehouse {movement.warehouse}"}
            for number, movement in enumerate(movements)
            if movement.warehouse not in codes
        ]
    if errors:
        raise Problem(422, "Invalid input", f"{len(errors)} line(s) are unknown", code="invalid", errors=errors[:50])


async def _average_costs(tx: Tx, stock: Stock, movements: Sequence[Movement], at: datetime, cause: Cause) -> None:
    """Moving average: what is there keeps its cost, what comes in brings its own."""
    bought = [movement for movement in movements if movement.unit_cost is not None and movement.quantity > 0]
    if not bought:
        return
    items = await master.lock(tx, [movement.sku for movement in bought])
    on_hand = {sku: sum(level.on_hand for level in stock.levels.get(sku, {}).values()) for sku in items}
    for movement in bought:
        item = items[movement.sku]
        assert movement.unit_cost is not None
        assert movement.currency is not None
        if item.cost_currency not in (None, movement.currency):
            raise Problem(
                422, "Invalid input", f"the cost of {movement.sku} is kept in {item.cost_currency}", code="invalid",
                errors=[{"field": "lines.currency", "message": "another currency"}],
            )  # fmt: skip
        before = on_hand[movement.sku]
        kept = movement.unit_cost if item.unit_cost is None else item.unit_cost
        value = before * kept + movement.quantity * movement.unit_cost
        on_hand[movement.sku] = before + movement.quantity
        item.unit_cost = (value / on_hand[movement.sku]).quantize(Decimal("0.000001"))
        item.cost_currency = movement.currency
    for item in items.values():
        item.version += 1
        assert item.unit_cost is not None
        assert item.cost_currency is not None
        changed = ItemCostChanged(occurred_at=at, sku=item.sku, unit_cost=item.unit_cost, currency=item.cost_currency)
        tx.publish(ITEMS, changed, cause=cause, sequence=item.version)
    await master.save_costs(tx, list(items.values()))
