"""What is decided: what every order costs, and whose coupon it may use. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from services.pricing.asks import Ask, Refusal
from services.pricing.rules import Rules, price
from shared.events.order import OrderCancelled, OrderEvent, OrderExpired, OrderPlaced, OrderRejected
from shared.events.pricing import CouponReleased, OrderPriced, PriceRefused, QuoteEvent


@dataclass
class OrderPrice:
    """What an order was told. Every order seen has one: ``priced``, ``refused``, or ``ended`` before it was seen."""

    state: str
    version: int = 0
    customer_id: UUID | None = None
    coupon: str | None = None  # whose use it holds
    answer: OrderPriced | PriceRefused | None = None  # given in this batch


@dataclass
class Book:
    """The orders of a batch and the rules that they need."""

    rules: Rules = field(default_factory=Rules)
    orders: dict[UUID, OrderPrice] = field(default_factory=dict[UUID, OrderPrice])
    buyers: dict[UUID, UUID | None] = field(default_factory=dict[UUID, UUID | None])  # of the orders placed
    new_orders: set[UUID] = field(default_factory=set[UUID])
    released_orders: set[UUID] = field(default_factory=set[UUID])
    uses: dict[tuple[str, UUID], str] = field(default_factory=dict[tuple[str, UUID], str])  # changed: held, released

    def evolve(self, event: QuoteEvent) -> int:
        """Apply ``event`` and return the version it gives its order."""
        order = self.orders.get(event.order_id) or self._seen(event.order_id, "ended")
        match event:
            case OrderPriced(coupon=coupon):
                order.state, order.answer = "priced", event
                if coupon is not None:
                    self._use(coupon, event.order_id, order, 1)
            case PriceRefused():
                order.state, order.answer = "refused", event
            case CouponReleased(coupon=coupon):
                self._use(coupon, event.order_id, order, -1)
                self.released_orders.add(event.order_id)
        order.version += 1
        return order.version

    def note(self, event: OrderEvent) -> None:
        """Remember an order that ended before it was seen: nothing is answered when it comes."""
        if isinstance(event, OrderRejected | OrderCancelled | OrderExpired) and event.order_id not in self.orders:
            self._seen(event.order_id, "ended")

    def _seen(self, order_id: UUID, state: str) -> OrderPrice:
        order = self.orders[order_id] = OrderPrice(state, customer_id=self.buyers.get(order_id))
        self.new_orders.add(order_id)
        return order

    def _use(self, code: str, order_id: UUID, order: OrderPrice, by: int) -> None:
        coupon = self.rules.coupons[code]
        coupon.used += by
        if order.customer_id is not None:
            coupon.held_by[order.customer_id] = coupon.held_by.get(order.customer_id, 0) + by
        order.coupon = code if by > 0 else None
        self.uses[code, order_id] = "held" if by > 0 else "released"


def decide(book: Book, event: OrderEvent) -> list[QuoteEvent]:
    """An order is priced once and holds its coupon until it ends; repeated or disordered events change nothing."""
    match event:
        case OrderPlaced(order_id=order_id):
            return [] if order_id in book.orders else [_answer(book, event)]
        case OrderRejected() | OrderCancelled() | OrderExpired():
            order = book.orders.get(event.order_id)
            if order is None or order.coupon is None:
                return []
            return [CouponReleased(occurred_at=event.occurred_at, order_id=event.order_id, coupon=order.coupon)]
        case _:
            return []


def _answer(book: Book, order: OrderPlaced) -> OrderPriced | PriceRefused:
    match price(book.rules, Ask.of(order)):
        case Refusal(reason=reason, detail=detail):
            return PriceRefused(occurred_at=order.occurred_at, order_id=order.order_id, reason=reason, detail=detail)
        case priced:
            return OrderPriced(
                occurred_at=order.occurred_at,
                order_id=order.order_id,
                currency=order.currency,
                tier=priced.tier,
                lines=priced.lines,
                discount=priced.discount,
                points_value=priced.points_value,
                tax=priced.tax,
                total=priced.total,
                coupon=priced.coupon,
            )
