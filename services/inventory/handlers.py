"""What comes in: orders."""

from __future__ import annotations

from datetime import datetime

from services.inventory import store
from services.inventory.decisions import Stock, decide
from shared.consume import Consumers
from shared.events.order import OrderEvent
from shared.messages import Batch, Cause
from shared.postgres import Tx
from shared.topics import HOLDS, ORDERS, STOCK

consumers = Consumers()


@consumers.on(ORDERS)
async def hold_stock(tx: Tx, batch: Batch[OrderEvent]) -> None:
    """Answer every order with the stock it got, and take back what ended orders held."""
    stock = await store.load(tx, [message.event for message in batch])
    for message in batch:
        for event in decide(stock, message.event):
            sequence = stock.evolve(event)
            tx.publish(HOLDS, event, cause=message, sequence=sequence)
    publish_levels(tx, stock, batch[-1].event.occurred_at, cause=batch[-1])
    await store.save(tx, stock)


def publish_levels(tx: Tx, stock: Stock, occurred_at: datetime, *, cause: Cause) -> None:
    """Levels are absolute, so a batch says each SKU's last one only."""
    for level, version in stock.changed(occurred_at):
        tx.publish(STOCK, level, cause=cause, sequence=version)
