"""What is decided: which care an order's life triggers, and what is no longer told. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from shared.events.customer import BuyerIdentified, IdentificationEvent
from shared.events.notify import CareEvent, CareFailed, CareTriggered
from shared.events.order import (
    OrderCancelled,
    OrderConfirmed,
    OrderEvent,
    OrderExpired,
    OrderLinesCancelled,
    OrderPlaced,
    OrderRejected,
    OrderSettled,
    ParcelLate,
    ParcelLost,
    ParcelRefused,
)

Heard = OrderEvent | IdentificationEvent
HEARD = (
    OrderPlaced, OrderConfirmed, BuyerIdentified, OrderLinesCancelled, OrderRejected, OrderCancelled, OrderExpired,
    OrderSettled, ParcelLate, ParcelLost, ParcelRefused,
)  # of these something follows  # fmt: skip

MAX_SKUS = 100  # of one order, for what goes with it
MARKETING = frozenset({"thank_you"})  # needs a consent that was given; all other mail one that was not withdrawn
OF_LIVE_ORDERS = frozenset({"order_confirmed", "parcel_late", "thank_you"})


def purpose(trigger: str) -> str:
    """What a customer's consent must cover."""
    return "marketing_email" if trigger in MARKETING else "order_updates"


@dataclass(frozen=True)
class Rules:
    """What is not told: what became known, to us or to whoever said it, more than ``stale_after`` after it occurred (an
    order of the past was imported, or the log is read from its beginning), and what concerns buyers of
    ``silent_channels``. Without ``mail`` no message is queued."""

    stale_after: timedelta = timedelta(days=7)
    silent_channels: frozenset[str] = frozenset()
    mail: bool = True

    def silences(self, channel: str | None) -> bool:
        """Whether its buyers must not be written to; an order that was placed before we listened may be one of them."""
        return channel in self.silent_channels or (channel is None and bool(self.silent_channels))


@dataclass
class OrderCare:
    """What is known of an order, and what it has triggered. ``unsent`` triggers have a message that can be stopped.

    ``ended``: it was refused, expired or cancelled. ``settled``: all that was not cancelled has been delivered.
    ``spoiled``: a parcel was lost, refused by the carrier, or given up.
    """

    customer_id: UUID | None = None
    version: int = 0
    ended: bool = False
    settled: bool = False
    spoiled: bool = False
    channel: str | None = None
    reference: str | None = None
    triggers: set[str] = field(default_factory=set[str])
    unsent: set[str] = field(default_factory=set[str])


@dataclass
class Book:
    """The orders of a batch, and what it did to them; ``now`` is when it is read."""

    now: datetime
    rules: Rules = field(default_factory=Rules)
    orders: dict[UUID, OrderCare] = field(default_factory=dict[UUID, OrderCare])
    touched: set[UUID] = field(default_factory=set[UUID])
    skus: dict[UUID, list[str]] = field(default_factory=dict[UUID, list[str]])  # of orders seen placed
    identified: set[UUID] = field(default_factory=set[UUID])  # their buyer became known
    triggered: list[CareTriggered] = field(default_factory=list[CareTriggered])
    stopped: list[CareFailed] = field(default_factory=list[CareFailed])

    def note(self, event: Heard) -> None:
        """Remember what the order is, whose it is, and where in its life."""
        match event:
            case OrderPlaced(channel=channel, external_reference=reference):
                order = self._of(event.order_id)
                order.channel, order.reference = channel, reference
                self.skus[event.order_id] = list(dict.fromkeys(line.sku for line in event.lines))[:MAX_SKUS]
                self._identify(event.order_id, event.customer_id)
            case OrderConfirmed(customer_id=customer) | BuyerIdentified(customer_id=customer):
                self._identify(event.order_id, customer)
            case OrderRejected() | OrderExpired() | OrderCancelled():
                self._of(event.order_id).ended = True
            case OrderSettled(customer_id=customer):
                self._identify(event.order_id, customer)
                self._of(event.order_id).settled = True
            case ParcelLost() | ParcelRefused() | OrderLinesCancelled(reason="undeliverable"):
                self._of(event.order_id).spoiled = True
            case _:
                pass

    def evolve(self, event: CareEvent) -> int:
        """Apply ``event`` and return the version it gives its order."""
        order = self._of(event.order_id)
        match event:
            case CareTriggered():
                order.triggers.add(event.trigger)
                self.triggered.append(event)
                if self.rules.mail:
                    order.unsent.add(event.trigger)
            case CareFailed():
                order.unsent.discard(event.trigger)
                self.stopped.append(event)
            case _:
                pass
        order.version += 1
        return order.version

    def _of(self, order_id: UUID) -> OrderCare:
        self.touched.add(order_id)
        return self.orders.setdefault(order_id, OrderCare())

    def _identify(self, order_id: UUID, customer: UUID | None) -> None:
        order = self._of(order_id)
        if customer is not None and order.customer_id != customer:
            order.customer_id = customer
            self.identified.add(order_id)


def decide(book: Book, event: Heard, recorded_at: datetime) -> list[CareEvent]:
    """What is stopped and what is triggered: at most one care per order and trigger, nothing stale, none of an order
    that has already ended in a no, and none for buyers that must not be written to."""
    order = book.orders.get(event.order_id, OrderCare())
    stopped: list[CareEvent] = [
        CareFailed(
            occurred_at=event.occurred_at, order_id=event.order_id, trigger=trigger, customer_id=order.customer_id,
            reason="order_ended",
        )
        for trigger in sorted(order.unsent & _untrue_after(event))
    ]  # fmt: skip
    if order.ended or book.rules.silences(order.channel):
        return stopped
    if max(recorded_at, book.now) - event.occurred_at > book.rules.stale_after:
        return stopped
    return [*stopped, *_triggered(order, event)]


def _untrue_after(event: Heard) -> frozenset[str]:
    """The messages that ``event`` makes untrue."""
    match event:
        case OrderCancelled() | OrderRejected() | OrderExpired():
            return OF_LIVE_ORDERS
        case ParcelLost():
            return frozenset({"parcel_late", "thank_you"})
        case ParcelRefused() | OrderLinesCancelled(reason="undeliverable"):
            return frozenset({"thank_you"})
        case OrderSettled():
            return frozenset({"parcel_late"})
        case _:
            return frozenset()


def _triggered(order: OrderCare, event: Heard) -> list[CareEvent]:
    match event:
        case OrderConfirmed(customer_id=customer):
            return _once(order, event, "order_confirmed", customer=customer)
        case OrderRejected(reason=reason):
            return _once(order, event, "order_refused", reason)
        case OrderExpired(waiting_for=waiting_for):
            return _once(order, event, "order_expired", ", ".join(waiting_for) or None)
        case ParcelRefused() | OrderLinesCancelled(reason="undeliverable") | OrderCancelled(reason="undeliverable"):
            return _once(order, event, "parcel_undeliverable")
        case OrderCancelled(reason=reason) if not _told_of_parcels(order, reason):
            return _once(order, event, "order_cancelled", reason)
        case ParcelLate() if not order.settled:
            return _once(order, event, "parcel_late")
        case ParcelLost():
            return _once(order, event, "parcel_lost")
        case OrderSettled(customer_id=customer) if not order.spoiled:
            return _once(order, event, "thank_you", customer=customer)
        case _:
            return []


def _told_of_parcels(order: OrderCare, reason: str) -> bool:
    """Whether the order ended with its parcels, of which its buyer is told; that nothing was sent is not true then."""
    return reason == "lost" or (reason == "nothing_left" and order.spoiled)


def _once(
    order: OrderCare, event: Heard, trigger: str, reason: str | None = None, customer: UUID | None = None
) -> list[CareEvent]:
    if trigger in order.triggers:
        return []
    return [
        CareTriggered(
            occurred_at=event.occurred_at, order_id=event.order_id, trigger=trigger,
            customer_id=customer or order.customer_id, reason=reason,
        )
    ]  # fmt: skip


def facts(event: Heard) -> Mapping[str, Any]:
    """What a message says of the event itself, as JSON; nothing personal."""
    match event:
        case OrderConfirmed(total=total, currency=currency):
            return {"total": str(total), "currency": currency}
        case ParcelLate(promised_at=promised_at):
            return {"promised_at": promised_at.isoformat()}
        case ParcelLost(items=items):
            return {"skus": list(dict.fromkeys(item.sku for item in items))[:MAX_SKUS]}
        case _:
            return {}
