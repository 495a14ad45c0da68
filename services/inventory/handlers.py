"""What comes in: orders and their parcels."""

from __future__ import annotations

from datetime import datetime

from services.inventory import store
from services.inventory.decisions import Stock, decide, not_held
from shared.consume import Consumers
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
from shared.messages import Batch, Cause
from shared.postgres import Tx
from shared.telemetry import log
from shared.topics import HOLDS, ORDERS, STOCK

consumers = Consumers()


@consumers.on(
    ORDERS,
    hears=(OrderPlaced, OrderLinesCancelled, ParcelShipped, OrderRejected, OrderCancelled, OrderExpired, OrderRestated),
)
async def hold_stock(tx: Tx, batch: Batch[OrderEvent]) -> None:
    """Answer every order with the stock it got, take back what ended orders held, issue what parcels took along."""
    issues: list[tuple[ParcelShipped, StockIssued]] = []
    stock = await store.load(tx, [message.event for message in batch])
    for message in batch:
        for event in decide(stock, message.event):
            sequence = stock.evolve(event)
            tx.publish(HOLDS, event, cause=message, sequence=sequence)
            if isinstance(event, StockIssued) and isinstance(message.event, ParcelShipped):
                issues.append((message.event, event))
                _report(message.event, event)
    publish_levels(tx, stock, batch[-1].event.occurred_at, cause=batch[-1])
    await store.save(tx, stock)
    await store.save_issues(tx, issues)


def _report(shipped: ParcelShipped, issued: StockIssued) -> None:
    """A parcel that took along more than its order held in the warehouse is a difference for somebody to look into."""
    if short := not_held(shipped, issued):
        log.warning(
            "parcel took along more than was held", order_id=str(shipped.order_id), parcel=shipped.parcel,
            warehouse=shipped.warehouse, not_held=short,
        )  # fmt: skip


def publish_levels(tx: Tx, stock: Stock, occurred_at: datetime, *, cause: Cause) -> None:
    """Levels are absolute, so a batch says each SKU's last one only."""
    for level, version in stock.changed(occurred_at):
        tx.publish(STOCK, level, cause=cause, sequence=version)
