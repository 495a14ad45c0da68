"""What is decided: how an order goes from placed to its end. A process manager without I/O or clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID, uuid5

from shared.events.customer import BuyerIdentified, BuyerRefused, IdentificationEvent
from shared.events.inventory import HoldEvent, StockHeld, StockRefused
from shared.events.order import (
    CancelledLine,
    OrderCancelled,
    OrderConfirmed,
    OrderEvent,
    OrderExpired,
    OrderLinesCancelled,
    OrderPlaced,
    OrderRejected,
    PaymentActionRequired,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRefunded,
    PaymentRequested,
    RefundRequested,
)
from shared.events.pricing import OrderPriced, PricedLine, PriceRefused, QuoteEvent
from shared.money import round_money, share

Answer = IdentificationEvent | HoldEvent | QuoteEvent

ENDED = frozenset({"rejected", "cancelled", "expired", "closed"})
OPEN_PAYMENT = frozenset({"requested", "pending", "action_required"})


@dataclass
class Payment:
    """``state``: requested, pending (the provider works on it), action_required, captured, declined or cancelled."""

    payment_id: UUID
    amount: Decimal
    state: str = "requested"
    provider: str = "card"
    captured: Decimal = Decimal(0)
    refunded: Decimal = Decimal(0)
    refunds: dict[UUID, Decimal] = field(default_factory=dict[UUID, Decimal])  # requested and not yet done
    provider_reference: str | None = None
    redirect_url: str | None = None
    closing: bool = False

    @property
    def open(self) -> bool:
        """Money may still move at the provider."""
        return self.state in OPEN_PAYMENT

    @property
    def refundable(self) -> Decimal:
        return self.captured - self.refunded - sum(self.refunds.values(), Decimal(0))


@dataclass
class Order:
    """An order as far as its process needs it."""

    order_id: UUID
    channel: str
    currency: str
    expected_total: Decimal | None = None
    prepaid: bool = False
    state: str = "placed"
    version: int = 0
    customer_id: UUID | None = None
    recipient_id: UUID | None = None
    identified: bool = False
    held: bool = False
    priced: bool = False
    total: Decimal | None = None
    priced_lines: Sequence[PricedLine] | None = None  # loaded only where lines matter
    cancelled_lines: dict[int, int] = field(default_factory=dict[int, int])
    cancelled_amount: Decimal = Decimal(0)
    reason: str | None = None
    payment: Payment | None = None

    def hear(self, answer: Answer) -> None:
        """Note what another service answered."""
        match answer:
            case BuyerIdentified(customer_id=customer, recipient_id=recipient):
                self.identified, self.customer_id, self.recipient_id = True, customer, recipient
            case StockHeld():
                self.held = True
            case OrderPriced(total=total, lines=lines):
                self.priced, self.total, self.priced_lines = True, total, lines
            case _:
                pass

    def evolve(self, event: OrderEvent) -> int:
        """Apply ``event`` and return the version it gives the order."""
        match event:
            case OrderPlaced():
                self.state = "placed"
            case PaymentRequested(payment_id=payment_id, amount=amount):
                self.state, self.payment = "paying", Payment(payment_id, amount)
            case PaymentActionRequired(redirect_url=url):
                self._paid().state, self._paid().redirect_url = "action_required", url
            case PaymentCaptured(payment_id=payment_id, amount=amount, provider=provider):
                self.payment = self.payment or Payment(payment_id, amount, provider=provider)
                self.payment.state, self.payment.captured = "captured", self.payment.captured + amount
            case PaymentDeclined():
                self._paid().state = "declined"
            case RefundRequested(refund_id=refund_id, amount=amount):
                self._paid().refunds[refund_id] = amount
            case PaymentRefunded(refund_id=refund_id, amount=amount):
                self._paid().refunds.pop(refund_id, None)
                self._paid().refunded += amount
            case OrderConfirmed():
                self.state = "confirmed"
            case OrderLinesCancelled(lines=lines, amount=amount):
                for line in lines:
                    self.cancelled_lines[line.line] = self.cancelled_lines.get(line.line, 0) + line.quantity
                self.cancelled_amount += amount
            case OrderRejected(reason=reason):
                self._end("rejected", reason)
            case OrderCancelled(reason=reason):
                if self.state == "confirmed" and self.total is not None:
                    self.cancelled_amount = self.total
                self._end("cancelled", reason)
            case OrderExpired(waiting_for=missing):
                self._end("expired", ", ".join(missing))
        self.version += 1
        return self.version

    def _end(self, state: str, reason: str) -> None:
        self.state, self.reason = state, reason
        if self.payment is not None and self.payment.open:
            self.payment.closing = True

    def _paid(self) -> Payment:
        assert self.payment is not None, f"order {self.order_id} has no payment"
        return self.payment

    @property
    def missing(self) -> tuple[str, ...]:
        """What the order still waits for."""
        legs = {"identification": self.identified, "price": self.priced, "stock": self.held}
        return tuple(leg for leg, there in legs.items() if not there) or ("payment",)


def decide(order: Order, answer: Answer) -> list[OrderEvent]:
    """What follows when ``order`` has heard ``answer``: the first no ends it, the last yes asks for the money."""
    if order.state != "placed":
        return []  # late or repeated; what an ended order was given is taken back by those who gave it
    at = answer.occurred_at
    match answer:
        case BuyerRefused(reason=reason, detail=detail) | PriceRefused(reason=reason, detail=detail):
            return [OrderRejected(occurred_at=at, order_id=order.order_id, reason=reason, detail=detail)]
        case StockRefused(shortages=shortages):
            known = "; ".join(
                f"{s.sku}: {s.available} of {s.wanted}" if s.known else f"{s.sku}: unknown" for s in shortages
            )
            return [OrderRejected(occurred_at=at, order_id=order.order_id, reason="stock", detail=known[:500])]
        case _:
            return _joined(order, at) if order.identified and order.held and order.priced else []


def _joined(order: Order, at: datetime) -> list[OrderEvent]:
    total = order.total
    assert total is not None
    if order.expected_total is not None and order.expected_total != total:
        detail = f"the buyer was shown {order.expected_total} {order.currency}, the price is {total}"
        return [OrderRejected(occurred_at=at, order_id=order.order_id, reason="price_differs", detail=detail)]
    if total == 0:
        return [_confirmed(order, at)]
    payment_id = uuid5(order.order_id, "payment")
    if order.prepaid:
        return [_captured(order, payment_id, total, order.channel, at), _confirmed(order, at)]
    return [
        PaymentRequested(
            occurred_at=at, order_id=order.order_id, payment_id=payment_id, amount=total, currency=order.currency
        )
    ]


def _captured(
    order: Order, payment_id: UUID, amount: Decimal, provider: str, at: datetime, *, late: bool = False
) -> PaymentCaptured:
    return PaymentCaptured(
        occurred_at=at, order_id=order.order_id, payment_id=payment_id, amount=amount, currency=order.currency,
        provider=provider, late=late,
    )  # fmt: skip


def _confirmed(order: Order, at: datetime) -> OrderConfirmed:
    assert order.customer_id is not None
    assert order.recipient_id is not None
    assert order.total is not None
    return OrderConfirmed(
        occurred_at=at, order_id=order.order_id, customer_id=order.customer_id, recipient_id=order.recipient_id,
        total=order.total, currency=order.currency,
    )  # fmt: skip


@dataclass(frozen=True)
class PaymentReport:
    """What the provider says of a payment: captured, declined, pending, requires_action or cancelled."""

    status: str
    amount: Decimal
    provider_reference: str | None = None
    reason: str = ""
    redirect_url: str | None = None


def settle(order: Order, report: PaymentReport, at: datetime) -> list[OrderEvent]:
    """What follows from the provider's word. Monotone: what is final stays so, except that money is always seen.

    A capture after the order has ended is refunded; a second word of the same capture says nothing.
    """
    payment = order.payment
    if payment is None or payment.state == "captured":
        return []
    order_id, payment_id = order.order_id, payment.payment_id
    payment.provider_reference = report.provider_reference or payment.provider_reference
    match report.status:
        case "captured":
            wanted = order.state == "paying" and report.amount == payment.amount
            captured = _captured(order, payment_id, report.amount, payment.provider, at, late=not wanted)
            if wanted:
                return [captured, _confirmed(order, at)]
            events: list[OrderEvent] = [captured, _refund(order, payment_id, report.amount, "late_capture", at)]
            if order.state == "paying":
                events.append(OrderRejected(occurred_at=at, order_id=order.order_id, reason="payment_amount_differs"))
            return events
        case "declined" | "cancelled" if payment.open:
            reason = report.reason or report.status
            events = [PaymentDeclined(occurred_at=at, order_id=order_id, payment_id=payment_id, reason=reason)]
            if order.state == "paying":
                late = payment.closing
                events.append(
                    OrderExpired(occurred_at=at, order_id=order.order_id, waiting_for=("payment",))
                    if late
                    else OrderRejected(
                        occurred_at=at, order_id=order.order_id, reason="payment_declined", detail=reason
                    )
                )
            return events
        case "requires_action" if payment.state in ("requested", "pending") and order.state == "paying":
            url = report.redirect_url or ""
            return [PaymentActionRequired(occurred_at=at, order_id=order_id, payment_id=payment_id, redirect_url=url)]
        case "pending" if payment.state == "requested":
            payment.state = "pending"
            return []
        case _:
            return []


def refunded(order: Order, refund_id: UUID, at: datetime) -> list[OrderEvent]:
    """The provider has paid a refund out; told twice, it is one."""
    payment = order.payment
    amount = payment.refunds.get(refund_id) if payment else None
    if payment is None or amount is None:
        return []
    return [
        PaymentRefunded(
            occurred_at=at,
            order_id=order.order_id,
            payment_id=payment.payment_id,
            refund_id=refund_id,
            amount=amount,
            currency=order.currency,
        )
    ]


@dataclass(frozen=True)
class Refusal:
    """Why a command is not carried out."""

    reason: str
    field: str = ""


def cancel(order: Order, reason: str, at: datetime) -> list[OrderEvent] | Refusal:
    """End the order and give back what was paid. A payment still open is closed, or refunded if it was captured."""
    if order.state == "cancelled":
        return []
    if order.state in ENDED:
        return Refusal(f"the order is {order.state} already")
    events: list[OrderEvent] = [OrderCancelled(occurred_at=at, order_id=order.order_id, reason=reason)]
    if order.payment is not None and order.payment.refundable > 0:
        events += _pay_back(order, order.payment.refundable, "cancelled", at)
    return events


def cancel_lines(order: Order, units: Mapping[int, int], at: datetime) -> list[OrderEvent] | Refusal:
    """Take units off lines of a confirmed order, and give back their share of what was paid, to the cent.

    What remains is always priced as a whole, so that all partial cancellations together give back the whole total.
    """
    if order.state != "confirmed":
        return Refusal(f"only lines of a confirmed order can be cancelled; this one is {order.state}")
    assert order.priced_lines is not None
    lines = {line.line: line for line in order.priced_lines}
    for number, quantity in units.items():
        left = lines[number].quantity - order.cancelled_lines.get(number, 0) if number in lines else 0
        if quantity > left:
            return Refusal(f"line {number} has {left} left to cancel", field="lines")
    after = dict(order.cancelled_lines)
    for number, quantity in units.items():
        after[number] = after.get(number, 0) + quantity
    if all(after.get(number, 0) == line.quantity for number, line in lines.items()):
        return cancel(order, "all_lines_cancelled", at)
    amount = _worth(order, order.cancelled_lines) - _worth(order, after)
    cancelled = tuple(
        CancelledLine(
            line=number, sku=lines[number].sku, quantity=quantity,
            amount=_left(order, lines[number], order.cancelled_lines) - _left(order, lines[number], after),
        )
        for number, quantity in sorted(units.items())
    )  # fmt: skip
    events: list[OrderEvent] = [
        OrderLinesCancelled(
            occurred_at=at, order_id=order.order_id, lines=cancelled, amount=amount, currency=order.currency
        )
    ]
    if amount > 0 and order.payment is not None:
        events += _pay_back(order, amount, "lines_cancelled", at)
    return events


def _left(order: Order, line: PricedLine, cancelled: Mapping[int, int]) -> Decimal:
    """What the units that are left of a line cost."""
    return share(line.total, line.quantity - cancelled.get(line.line, 0), line.quantity, order.currency)


def _worth(order: Order, cancelled: Mapping[int, int]) -> Decimal:
    """What the order costs with these units cancelled: redeemed points are taken off in proportion."""
    assert order.priced_lines is not None
    assert order.total is not None
    whole = sum((line.total for line in order.priced_lines), Decimal(0))
    left = sum((_left(order, line, cancelled) for line in order.priced_lines), Decimal(0))
    return round_money(order.total * left / whole, order.currency) if whole else Decimal(0)


def _pay_back(order: Order, amount: Decimal, reason: str, at: datetime) -> list[OrderEvent]:
    payment = order.payment
    assert payment is not None
    request = _refund(order, payment.payment_id, amount, reason, at)
    if not order.prepaid:
        return [request]
    done = PaymentRefunded(  # a channel that was paid pays back itself; there is no provider to ask
        occurred_at=at, order_id=order.order_id, payment_id=payment.payment_id, refund_id=request.refund_id,
        amount=amount, currency=order.currency,
    )  # fmt: skip
    return [request, done]


def _refund(order: Order, payment_id: UUID, amount: Decimal, reason: str, at: datetime) -> RefundRequested:
    return RefundRequested(
        occurred_at=at, order_id=order.order_id, payment_id=payment_id,
        refund_id=uuid5(payment_id, f"refund/{order.version}"), amount=amount, currency=order.currency, reason=reason,
    )  # fmt: skip


def expire(order: Order, at: datetime) -> list[OrderEvent]:
    """The deadline has passed. While a payment is open the provider is asked to close it first: its word decides."""
    if order.state == "placed":
        return [OrderExpired(occurred_at=at, order_id=order.order_id, waiting_for=order.missing)]
    if order.state == "paying" and order.payment is not None:
        order.payment.closing = True
    return []
