"""What comes in: orders, customers' tiers, the product master, and how much is asked for."""

from __future__ import annotations

from uuid import UUID

from services.pricing import catalogue, demand_store, store
from services.pricing.decisions import decide
from shared.consume import Consumers
from shared.events.customer import CustomerEvent, CustomerRegistered, TierChanged
from shared.events.inventory import ItemEvent, ItemRegistered
from shared.events.order import (
    OrderCancelled,
    OrderConfirmed,
    OrderEvent,
    OrderExpired,
    OrderPlaced,
    OrderRejected,
    OrderRestated,
)
from shared.events.pricing import DemandEvent
from shared.messages import Batch
from shared.postgres import Tx
from shared.topics import CUSTOMERS, DEMAND, ITEMS, ORDERS, QUOTES

consumers = Consumers()


@consumers.on(ORDERS, hears=(OrderPlaced, OrderConfirmed, OrderRejected, OrderCancelled, OrderExpired, OrderRestated))
async def price_orders(tx: Tx, batch: Batch[OrderEvent]) -> None:
    """Answer every order with what it costs, and take back the coupon's use and the quote that an ended order held."""
    book = await store.load(tx, [message.event for message in batch])
    for message in batch:
        for event in decide(book, message.event, message.recorded_at):
            sequence = book.evolve(event)
            tx.publish(QUOTES, event, cause=message, sequence=sequence)
        book.note(message.event)
    await store.save(tx, book)


@consumers.on(CUSTOMERS, view=("tiers",))
async def learn_tiers(tx: Tx, batch: Batch[CustomerEvent]) -> None:
    """Keep an own copy of who has which tier. Orders that were priced keep their price."""
    tiers: dict[UUID, tuple[str, int]] = {}
    for message in batch:
        match message.event:
            case CustomerRegistered(customer_id=customer, tier=tier) | TierChanged(customer_id=customer, tier=tier):
                tiers[customer] = max((tier, message.sequence), tiers.get(customer, ("", 0)), key=lambda one: one[1])
            case _:
                pass
    await catalogue.learn_tiers(tx, tiers)


@consumers.on(ITEMS, view=("items",))
async def learn_tax_classes(tx: Tx, batch: Batch[ItemEvent]) -> None:
    """Keep an own copy of which SKUs exist, and of their tax classes."""
    items: dict[str, tuple[str, int]] = {}
    for message in batch:
        match message.event:
            case ItemRegistered(sku=sku, tax_class=tax_class):
                items[sku] = max((tax_class, message.sequence), items.get(sku, ("", 0)), key=lambda one: one[1])
            case _:
                pass
    await catalogue.learn_tax_classes(tx, items)


@consumers.on(DEMAND)
async def learn_demand(tx: Tx, batch: Batch[DemandEvent]) -> None:
    """Keep the best measurement of every window. It decides nothing: prices do not follow a signal."""
    await demand_store.save(tx, demand_store.best(batch))
