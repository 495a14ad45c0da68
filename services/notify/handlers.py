"""What comes in: orders and their buyers, and the product master with its stock."""

from __future__ import annotations

from collections.abc import Callable

from services.notify import products, store
from services.notify.decisions import HEARD, Heard, Rules, decide, facts
from services.notify.products import ProductEvent
from services.notify.store import Queued
from shared.consume import Consumers
from shared.events.notify import CareTriggered
from shared.messages import Batch
from shared.postgres import Tx
from shared.topics import CARE, IDENTIFICATIONS, ITEMS, ORDERS, STOCK


def build(rules: Rules, due: Callable[[], None] = lambda: None) -> Consumers:
    """The consumers of a service with these rules; ``due`` is called once messages have been queued."""
    consumers = Consumers()

    @consumers.on(ORDERS, IDENTIFICATIONS, hears=HEARD, patience=0.1)
    async def trigger_care(tx: Tx, batch: Batch[Heard]) -> None:
        """Say what customers are to be told of their orders, and queue the messages; stop what is no longer true."""
        book = await store.load(tx, rules, [message.event for message in batch])
        queue: list[Queued] = []
        for message in batch:
            for event in decide(book, message.event, message.recorded_at):
                id_ = tx.publish(CARE, event, cause=message, sequence=book.evolve(event))
                if isinstance(event, CareTriggered):
                    queue.append(Queued(event, facts(message.event), id_, message.correlation_id, str(message.trace)))
            book.note(message.event)
        await store.save(tx, book, queue)
        if queue or book.identified:
            tx.after_commit(due)

    @consumers.on(ITEMS, STOCK, view=("products",), patience=0.25)
    async def learn_products(tx: Tx, batch: Batch[ProductEvent]) -> None:
        """Keep an own copy of what products are called, and of whether they can be had."""
        await products.learn(tx, batch)

    return consumers
