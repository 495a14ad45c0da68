"""What is decided: what every order costs, and whose coupon it may use. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from services.pricing.asks import Ask, Refusal
from services.pricing.redemption import Quote, redeem
from services.pricing.rules import Rules, price
from shared.events.order import (
    OrderCancelled,
    OrderConfirmed,
    OrderEvent,
    OrderExpired,
    OrderPlaced,
    OrderRejected,
    OrderRestated,
)
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
    """The orders of a batch, and the rules and quotes that they need."""

    rules: Rules = field(default_factory=Rules)
    orders: dict[UUID, OrderPrice] = field(default_factory=dict[UUID, OrderPrice])
    buyers: dict[UUID, UUID | None] = field(default_factory=dict[UUID, UUID | None])  # of the orders placed
    new_orders: set[UUID] = field(default_factory=set[UUID])
    released_orders: set[UUID] = field(default_factory=set[UUID])
    uses: dict[tuple[str, UUID], str] = field(default_factory=dict[tuple[str, UUID], str])  # changed: held, released
    quotes: dict[UUID, Quote] = field(default_factory=dict[UUID, Quote])
    changed_quotes: set[UUID] = field(default_factory=set[UUID])

    def __post_init__(self) -> None:
        self._quote_of = {quote.order_id: quote for quote in self.quotes.values() if quote.order_id is not None}

    def evolve(self, event: QuoteEvent) -> int:
        """Apply ``event`` and return the version it gives its order."""
        order = self.orders.get(event.order_id) or self._seen(event.order_id, "ended")
        match event:
            case OrderPriced(coupon=coupon, quote_id=quote_id):
                order.state, order.answer = "priced", event
                if quote_id is not None:
                    self._quote_of[event.order_id] = self.quotes[quote_id]
                    self._now(self.quotes[quote_id], "held", event.order_id)
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
        """Remember what nobody is told: an order that ended before it was seen, and what became of its quote.

        An order that ends gives its quote back, unless it was confirmed.
        """
        match event:
            case OrderRejected() | OrderCancelled() | OrderExpired():
                if event.order_id not in self.orders:
                    self._seen(event.order_id, "ended")
                quote = self._quote_of.get(event.order_id)
                if quote is not None and quote.state == "held":
                    del self._quote_of[event.order_id]
                    self._now(quote, "open", None)
            case OrderConfirmed():
                if (quote := self._quote_of.get(event.order_id)) is not None:
                    self._now(quote, "spent", event.order_id)
            case OrderRestated(keeps_coupon=keeps):
                quote = self._quote_of.get(event.order_id)
                if quote is not None and quote.state == "held":
                    self._now(quote, *(("spent", event.order_id) if keeps else ("open", None)))
            case _:
                pass

    def _now(self, quote: Quote, state: str, order_id: UUID | None) -> None:
        quote.state, quote.order_id = state, order_id
        self.changed_quotes.add(quote.quote_id)

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


def decide(book: Book, event: OrderEvent, recorded_at: datetime) -> list[QuoteEvent]:
    """An order is priced once and holds its coupon until it ends; repeated or disordered events change nothing.

    ``recorded_at`` is when ``event`` was recorded, by the database's clock.
    """
    match event:
        case OrderPlaced(order_id=order_id):
            return [] if order_id in book.orders else [_answer(book, event, recorded_at)]
        case OrderRestated(keeps_coupon=True):
            return []  # a use that it lost is not taken again: others may have used up the coupon meanwhile
        case OrderRejected() | OrderCancelled() | OrderExpired() | OrderRestated():
            order = book.orders.get(event.order_id)
            if order is None or order.coupon is None:
                return []
            return [CouponReleased(occurred_at=event.occurred_at, order_id=event.order_id, coupon=order.coupon)]
        case _:
            return []


def _answer(book: Book, order: OrderPlaced, recorded_at: datetime) -> OrderPriced | PriceRefused:
    if order.quote_id is None:
        outcome = price(book.rules, Ask.of(order))
    else:
        outcome = redeem(book.quotes.get(order.quote_id), order, recorded_at, book.rules.coupons)
    match outcome:
        case Refusal(reason=reason, detail=detail):
            return PriceRefused(occurred_at=order.occurred_at, order_id=order.order_id, reason=reason, detail=detail)
        case priced:
            point_value = priced.point_value
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
                quote_id=order.quote_id,
                point_value=book.rules.point_value(order.currency) if point_value is None else point_value,
            )
