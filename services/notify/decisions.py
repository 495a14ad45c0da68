"""What is decided: which care an order's life triggers. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from shared.events.notify import CareEvent, CareTriggered
from shared.events.order import (
    OrderCancelled,
    OrderConfirmed,
    OrderEvent,
    OrderExpired,
    OrderPlaced,
    OrderRejected,
)


@dataclass
class OrderCare:
    """What is known of an order, and what it has triggered. ``ended``: it was refused, expired or cancelled."""

    customer_id: UUID | None = None
    version: int = 0
    ended: bool = False
    triggers: set[str] = field(default_factory=set[str])


@dataclass
class Book:
    """The orders of a batch."""

    orders: dict[UUID, OrderCare] = field(default_factory=dict[UUID, OrderCare])
    touched: set[UUID] = field(default_factory=set[UUID])
    triggered: list[CareTriggered] = field(default_factory=list[CareTriggered])

    def note(self, event: OrderEvent) -> None:
        """Remember whose order it is, once it is known."""
        match event:
            case OrderPlaced(customer_id=customer) | OrderConfirmed(customer_id=customer):
                order = self._order(event.order_id)
                if customer is not None and order.customer_id != customer:
                    order.customer_id = customer
                    self.touched.add(event.order_id)
            case OrderRejected() | OrderExpired() | OrderCancelled():
                order = self._order(event.order_id)
                if not order.ended:
                    order.ended = True
                    self.touched.add(event.order_id)
            case _:
                pass

    def evolve(self, event: CareEvent) -> int:
        """Apply ``event`` and return the version it gives its order."""
        order = self._order(event.order_id)
        order.triggers.add(event.trigger)
        order.version += 1
        self.touched.add(event.order_id)
        self.triggered.append(event)
        return order.version

    def _order(self, order_id: UUID) -> OrderCare:
        if order_id not in self.orders:
            self.orders[order_id] = OrderCare()
            self.touched.add(order_id)
        return self.orders[order_id]


def decide(book: Book, event: OrderEvent) -> list[CareEvent]:
    """At most one care per order and trigger, and none for an order that has already ended in a no."""
    match event:
        case OrderConfirmed(customer_id=customer):
            return _trigger(book, event, "order_confirmed", customer=customer)
        case OrderRejected(reason=reason):
            return _trigger(book, event, "order_refused", reason)
        case OrderExpired(waiting_for=waiting_for):
            return _trigger(book, event, "order_expired", ", ".join(waiting_for) or None)
        case OrderCancelled(reason=reason):
            return _trigger(book, event, "order_cancelled", reason)
        case _:
            return []


def _trigger(
    book: Book, event: OrderEvent, trigger: str, reason: str | None = None, customer: UUID | None = None
) -> list[CareEvent]:
    order = book.orders.get(event.order_id, OrderCare())
    if order.ended or trigger in order.triggers:
        return []
    return [
        CareTriggered(
            occurred_at=event.occurred_at, order_id=event.order_id, trigger=trigger,
            customer_id=customer or order.customer_id, reason=reason,
        )
    ]  # fmt: skip
