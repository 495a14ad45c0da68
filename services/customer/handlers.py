"""What comes in: sealed buyers, orders, and sealing keys that are done with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from services.customer import ledger, sealing_keys, store
from services.customer.contacts import note_contacts
from services.customer.decisions import Claim, Said, Unreadable, dated, decide
from services.customer.keyring import Keyring
from services.customer.people import Masks, contacts, traits
from services.customer.points import Entry
from services.customer.registry import IdentityLinked, OrderEnded, Outcome, Programme, Registry, ReviewSet
from services.customer.store import Vault
from shared.consume import Consumers, Due
from shared.events.customer import (
    BuyerIdentified,
    BuyerRefused,
    ConsentChanged,
    CustomerRegistered,
    PointsReleased,
    PointsSettled,
    TierChanged,
)
from shared.events.order import (
    BuyerSealed,
    OrderCancelled,
    OrderEvent,
    OrderExpired,
    OrderLinesCancelled,
    OrderRejected,
    OrderRestated,
    OrderSettled,
    SealingKeyRetired,
)
from shared.messages import Batch, Cause, Message
from shared.postgres import Tx
from shared.sealing import SealedBuyer, UnreadableError, unseal
from shared.topics import CARE, CUSTOMERS, IDENTIFICATIONS, INTAKE, ORDERS, RETIRED_KEYS

IntakeEvent = BuyerSealed | OrderEvent
Boxes = Mapping[UUID, SealedBuyer]  # by the id of the message that brought it; unreadable ones are absent
USUAL = Programme()


def build(keyring: Keyring, masks: Masks, programme: Programme = USUAL) -> Consumers:
    """The consumers of a service that has these keys and terms."""
    consumers = Consumers()

    @consumers.on(
        INTAKE, ORDERS,
        hears=(
            BuyerSealed, OrderLinesCancelled, OrderSettled, OrderRejected, OrderCancelled, OrderExpired, OrderRestated,
        ),
    )  # fmt: skip
    async def identify_buyers(tx: Tx, batch: Batch[IntakeEvent]) -> None:
        """Answer every order with its buyer and the points it redeems, and when settled with those it earns.

        What was cancelled, or ended, gives its points back.
        """
        boxes = await _open(tx, keyring, batch)
        vault = Vault(keyring, Registry(programme))
        await _load(tx, vault, masks, batch, boxes)
        accepted: list[tuple[BuyerIdentified, SealedBuyer]] = []
        for message in batch:
            said = _said(vault, masks, message, boxes.get(message.id))
            if isinstance(said, OrderSettled):
                vault.registry.advance(said.occurred_at)
            for outcome in decide(vault.registry, said):
                publish(tx, vault.registry, outcome, cause=message)
                if isinstance(outcome, BuyerIdentified):
                    accepted.append((outcome, boxes[message.id]))
        await store.save(tx, vault)
        await store.save_recipients(tx, vault, accepted)
        await store.save_contacts(
            tx, vault,
            [(event.customer_id, contact) for event, box in accepted
             for contact in contacts(box.buyer.name, box.buyer.email, box.buyer.phone)],
        )  # fmt: skip

    @consumers.deadlines(after=identify_buyers)
    async def note_read(tx: Tx, due: Due) -> None:
        """Tell those who lower tiers how far settlements have been read."""
        await ledger.note_read(tx, due.until, due.partitions)

    @consumers.on(RETIRED_KEYS)
    async def retire_sealing_keys(tx: Tx, batch: Batch[SealingKeyRetired]) -> None:
        """Destroy private keys that no waiting order was sealed with."""
        await sealing_keys.destroy(tx, [message.event.key_id for message in batch])

    consumers.on(CARE, patience=0.25)(note_contacts)
    return consumers


def publish(tx: Tx, registry: Registry, outcome: Outcome, *, cause: Cause) -> None:
    """Apply an outcome, and say it to those whom it concerns."""
    sequence = registry.evolve(outcome)
    match outcome:
        case BuyerIdentified() | BuyerRefused() | PointsReleased() | PointsSettled():
            tx.publish(IDENTIFICATIONS, outcome, cause=cause, sequence=sequence)
        case CustomerRegistered() | TierChanged() | ConsentChanged():
            tx.publish(CUSTOMERS, outcome, cause=cause, sequence=sequence)
        case IdentityLinked() | OrderEnded() | Entry() | ReviewSet():
            pass


async def _open(tx: Tx, keyring: Keyring, batch: Batch[IntakeEvent]) -> Boxes:
    sealed = [(message.id, message.event) for message in batch if isinstance(message.event, BuyerSealed)]
    boxes: dict[UUID, SealedBuyer] = {}
    if sealed:
        keys = await sealing_keys.private_keys(tx, keyring, [event.key_id for _, event in sealed])
        for id_, event in sealed:
            try:
                if event.key_id in keys:
                    boxes[id_] = unseal(keys[event.key_id], event.sealed, event.order_id)
            except UnreadableError:
                pass  # absent: the order is told so
    return boxes


async def _load(tx: Tx, vault: Vault, masks: Masks, batch: Batch[IntakeEvent], boxes: Boxes) -> None:
    registry = vault.registry
    registry.orders = await store.lock_orders(tx, *_orders(message.event for message in batch))
    sealed = [(message.event, boxes.get(message.id)) for message in batch if isinstance(message.event, BuyerSealed)]
    anonymous = [
        trait for event, box in sealed if box and event.customer_id is None
        for trait in traits(box.buyer, event.channel, masks)
    ]  # fmt: skip
    await store.lock_identities(tx, vault, anonymous)
    named = {event.customer_id for event, _ in sealed if event.customer_id}
    holding = {order.customer_id for order in registry.orders.values() if order.customer_id}
    await store.lock_customers(tx, vault, {*named, *holding, *registry.owners.values()})
    settled = [message.event for message in batch if isinstance(message.event, OrderSettled)]
    if settled:
        buyers = [order.customer_id for event in settled if (order := registry.orders.get(event.order_id))]
        customers = [one.customer_id for id_ in buyers if id_ and (one := registry.customer(id_))]
        await ledger.load(tx, registry, customers, min(event.occurred_at for event in settled))


def _orders(events: Iterable[IntakeEvent]) -> tuple[dict[UUID, tuple[str | None, datetime]], set[UUID]]:
    """The orders that these events can change: those that get a row, with their channel where it is known; others."""
    orders: dict[UUID, tuple[str | None, datetime]] = {}
    others: set[UUID] = set()
    for event in events:
        match event:
            case BuyerSealed(order_id=order, channel=channel):
                orders[order] = (channel, event.occurred_at)
            case OrderRejected() | OrderCancelled() | OrderExpired() | OrderSettled():
                orders.setdefault(event.order_id, (None, event.occurred_at))
            case OrderLinesCancelled(order_id=order, points=points) if points:
                others.add(order)
            case OrderRestated(order_id=order, points=points) if points is not None:
                others.add(order)
            case _:
                pass
    return orders, others


def _said(vault: Vault, masks: Masks, message: Message[IntakeEvent], box: SealedBuyer | None) -> Said:
    """The event as decisions see it: without anything personal, and not ahead of real time."""
    event = message.event
    if not isinstance(event, BuyerSealed):
        return dated(event, message.recorded_at)
    if box is None:
        return Unreadable(order_id=event.order_id, occurred_at=event.occurred_at)
    known = () if event.customer_id else vault.identify(traits(box.buyer, event.channel, masks))
    return Claim(
        order_id=event.order_id, channel=event.channel, occurred_at=event.occurred_at,
        customer_id=event.customer_id, identities=known, points=event.points,
    )  # fmt: skip
