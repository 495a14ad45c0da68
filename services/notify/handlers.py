"""What comes in: orders."""

from __future__ import annotations

from services.notify import store
from services.notify.decisions import decide
from shared.consume import Consumers
from shared.events.order import OrderEvent
from shared.messages import Batch
from shared.postgres import Tx
from shared.topics import CARE, ORDERS

consumers = Consumers()


@consumers.on(ORDERS)
async def trigger_care(tx: Tx, batch: Batch[OrderEvent]) -> None:
    """Say that a customer is to be told: an order was confirmed, refused, expired or cancelled."""
    book = await store.load(tx, [message.event for message in batch])
    for message in batch:
        for event in decide(book, message.event):
            sequence = book.evolve(event)
            tx.publish(CARE, event, cause=message, sequence=sequence)
        book.note(message.event)
    await store.save(tx, book)
