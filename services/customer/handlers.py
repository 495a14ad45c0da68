"""What comes in: sealed buyers, orders, and sealing keys that are done with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from services.customer import sealing_keys, store
from services.customer.decisions import Claim, IdentityLinked, OrderEnded, Outcome, Registry, Said, Unreadable, decide
from services.customer.keyring import Keyring
from services.customer.people import Masks, contacts, traits
from services.customer.store import Vault
from shared.consume import Consumers
from shared.events.customer import (
    BuyerIdentified,
    BuyerRefused,
    ConsentChanged,
    CustomerRegistered,
    PointsReleased,
    TierChanged,
)
from shared.events.order import BuyerSealed, OrderCancelled, OrderEvent, OrderExpired, OrderRejected, SealingKeyRetired
from shared.messages import Batch, Cause
from shared.postgres import Tx
from shared.sealing import SealedBuyer, UnreadableError, unseal
from shared.topics import CUSTOMERS, IDENTIFICATIONS, INTAKE, ORDERS, RETIRED_KEYS

IntakeEvent = BuyerSealed | OrderEvent
Boxes = Mapping[UUID, SealedBuyer]  # by the id of the message that brought it; unreadable ones are absent


def build(keyring: Keyring, masks: Masks) -> Consumers:
    """The consumers of a service that has these keys."""
    consumers = Consumers()

    @consumers.on(INTAKE, ORDERS)
    async def identify_buyers(tx: Tx, batch: Batch[IntakeEvent]) -> None:
        """Answer every order with its buyer and the points it redeems; give back what ended orders held."""
        boxes = await _open(tx, keyring, batch)
        vault = await _load(tx, keyring, masks, batch, boxes)
        accepted: list[tuple[BuyerIdentified, SealedBuyer]] = []
        for message in batch:
            said = _said(vault, masks, message.event, boxes.get(message.id))
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

    @consumers.on(RETIRED_KEYS)
    async def retire_sealing_keys(tx: Tx, batch: Batch[SealingKeyRetired]) -> None:
        """Destroy private keys that no waiting order was sealed with."""
        await sealing_keys.destroy(tx, [message.event.key_id for message in batch])

    return consumers


def publish(tx: Tx, registry: Registry, outcome: Outcome, *, cause: Cause) -> None:
    """Apply an outcome, and say it to those whom it concerns."""
    sequence = registry.evolve(outcome)
    match outcome:
        case BuyerIdentified() | BuyerRefused() | PointsReleased():
            tx.publish(IDENTIFICATIONS, outcome, cause=cause, sequence=sequence)
        case CustomerRegistered() | TierChanged() | ConsentChanged():
            tx.publish(CUSTOMERS, outcome, cause=cause, sequence=sequence)
        case IdentityLinked() | OrderEnded():
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


async def _load(tx: Tx, keyring: Keyring, masks: Masks, batch: Batch[IntakeEvent], boxes: Boxes) -> Vault:
    vault = Vault(keyring)
    vault.registry.orders = await store.lock_orders(tx, _orders(message.event for message in batch))
    sealed = [(message.event, boxes.get(message.id)) for message in batch if isinstance(message.event, BuyerSealed)]
    anonymous = [
        trait for event, box in sealed if box and event.customer_id is None
        for trait in traits(box.buyer, event.channel, masks)
    ]  # fmt: skip
    await store.lock_identities(tx, vault, anonymous)
    named = {event.customer_id for event, _ in sealed if event.customer_id}
    holding = {order.customer_id for order in vault.registry.orders.values() if order.customer_id}
    await store.lock_customers(tx, vault, {*named, *holding, *vault.registry.owners.values()})
    return vault


def _orders(events: Iterable[IntakeEvent]) -> dict[UUID, tuple[str | None, datetime]]:
    """The orders that these events can change, with their channel where it is known."""
    orders: dict[UUID, tuple[str | None, datetime]] = {}
    for event in events:
        match event:
            case BuyerSealed(order_id=order, channel=channel):
                orders[order] = (channel, event.occurred_at)
            case OrderRejected(order_id=order) | OrderCancelled(order_id=order) | OrderExpired(order_id=order):
                orders.setdefault(order, (None, event.occurred_at))
            case _:
                pass
    return orders


def _said(vault: Vault, masks: Masks, event: IntakeEvent, box: SealedBuyer | None) -> Said:
    """``event`` as decisions see it: without anything personal."""
    if not isinstance(event, BuyerSealed):
        return event
    if box is None:
        return Unreadable(order_id=event.order_id, occurred_at=event.occurred_at)
    known = () if event.customer_id else vault.identify(traits(box.buyer, event.channel, masks))
    return Claim(
        order_id=event.order_id, channel=event.channel, occurred_at=event.occurred_at,
        customer_id=event.customer_id, identities=known, points=event.points,
    )  # fmt: skip
