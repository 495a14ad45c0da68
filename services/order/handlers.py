"""What comes in: the answers of customer, pricing and inventory, deadlines, care, and what intake needs to know."""

from __future__ import annotations

from services.order import knowledge, store, timeline
from services.order.decisions import decide, expire
from services.order.settlement.decisions import post_issue, post_points
from shared.consume import Consumers, Due
from shared.events.customer import IdentificationEvent, PointsSettled, SealingKeyEvent
from shared.events.inventory import HoldEvent, ItemEvent, StockIssued
from shared.events.notify import CareEvent
from shared.events.pricing import QuoteEvent
from shared.messages import Batch
from shared.postgres import Tx
from shared.topics import CARE, HOLDS, IDENTIFICATIONS, ITEMS, QUOTES, SEALING_KEYS

EXPIRE_AT_ONCE = 200
CLOSE_AGAIN_AFTER = 30  # seconds, while the provider has not said what became of a payment


def build(payment_deadline: int) -> Consumers:
    """The consumers of the order service; ``payment_deadline`` in seconds."""
    consumers = Consumers()

    @consumers.on(IDENTIFICATIONS, QUOTES, HOLDS)
    async def join_answers(tx: Tx, batch: Batch[IdentificationEvent | QuoteEvent | HoldEvent]) -> None:
        """Hear what was answered; whoever gives the last answer sets the order going."""
        orders = await store.load(tx, [message.event.order_id for message in batch])
        for message in batch:
            order = orders.by_id[message.event.order_id]
            match message.event:
                case StockIssued(parcel=number) if (parcel := order.parcel(number)) is not None and not parcel.issued:
                    orders.book(message.id, post_issue(order, message.event))
                case PointsSettled() if not order.points_settled:
                    orders.book(message.id, post_points(order, message.event))
                case _:
                    pass
            order.hear(message.event)
            orders.heard.add(order.order_id)
            events = decide(order, message.event)
            orders.happen(tx, order, events, message, message.event.occurred_at)
            if events and order.state == "paying":
                orders.extend[order.order_id] = payment_deadline
        await store.save(tx, orders)

    @consumers.deadlines(after=join_answers)
    async def expire_orders(tx: Tx, due: Due) -> None:
        """End orders whose answers did not come in time; ask for open payments to be closed."""
        overdue = await store.overdue(tx, due.until, due.partitions, EXPIRE_AT_ONCE)
        orders = await store.load(tx, overdue)
        for order in orders.by_id.values():
            deadline = orders.deadlines[order.order_id]
            if deadline is None or deadline > due.until:
                continue  # while we waited for the lock, it went on
            cause = orders.cause(order.order_id, f"deadline/{order.version}")
            orders.happen(tx, order, expire(order, due.until), cause, due.until)
            orders.extend[order.order_id] = CLOSE_AGAIN_AFTER
        await store.save(tx, orders)

    @consumers.on(CARE, view=("care_steps",), patience=0.25)
    async def note_care(tx: Tx, batch: Batch[CareEvent]) -> None:
        """Show in an order's timeline what its customer was told."""
        await timeline.write_care(tx, batch)

    @consumers.on(ITEMS, view=("known_items",))
    async def learn_items(tx: Tx, batch: Batch[ItemEvent]) -> None:
        """Know which SKUs exist, to refuse an unknown one at the door."""
        await knowledge.save_items(tx, batch)

    @consumers.on(SEALING_KEYS)
    async def learn_sealing_keys(tx: Tx, batch: Batch[SealingKeyEvent]) -> None:
        """Know the keys with which personal data is sealed for the customer service."""
        await knowledge.save_keys(tx, [message.event for message in batch])

    return consumers
