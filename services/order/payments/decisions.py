"""What is decided about money that the provider holds: captures, refusals, refunds. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID, uuid5

from services.order.state import Order
from shared.events.order import (
    OrderConfirmed,
    OrderEvent,
    OrderExpired,
    OrderRejected,
    PaymentActionRequired,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRefunded,
    RefundRequested,
)


@dataclass(frozen=True)
class PaymentReport:
    """What the provider says of a payment: captured, declined, pending, requires_action or cancelled.

    ``fee`` is what it keeps of a captured ``amount``, ``refunded`` what it has paid back.
    """

    status: str
    amount: Decimal
    provider_reference: str | None = None
    reason: str = ""
    redirect_url: str | None = None
    fee: Decimal = Decimal(0)
    refunded: Decimal = Decimal(0)


def captured(
    order: Order, payment_id: UUID, amount: Decimal, provider: str, at: datetime, *, fee: Decimal, late: bool = False
) -> PaymentCaptured:
    return PaymentCaptured(
        occurred_at=at, order_id=order.order_id, payment_id=payment_id, amount=amount, currency=order.currency,
        provider=provider, late=late, fee=fee,
    )  # fmt: skip


def confirmed(order: Order, at: datetime) -> OrderConfirmed:
    assert order.customer_id is not None
    assert order.recipient_id is not None
    assert order.total is not None
    return OrderConfirmed(
        occurred_at=at, order_id=order.order_id, customer_id=order.customer_id, recipient_id=order.recipient_id,
        total=order.total, currency=order.currency,
    )  # fmt: skip


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
            return _captured(order, payment_id, report, at)
        case "declined" | "cancelled" if payment.open:
            reason = report.reason or report.status
            events: list[OrderEvent] = [
                PaymentDeclined(occurred_at=at, order_id=order_id, payment_id=payment_id, reason=reason)
            ]
            if order.state == "paying":
                events.append(
                    OrderExpired(occurred_at=at, order_id=order_id, waiting_for=("payment",))
                    if payment.closing
                    else OrderRejected(occurred_at=at, order_id=order_id, reason="payment_declined", detail=reason)
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


def _captured(order: Order, payment_id: UUID, report: PaymentReport, at: datetime) -> list[OrderEvent]:
    assert order.payment is not None
    wanted = order.state == "paying" and report.amount == order.payment.amount
    money = captured(
        order, payment_id, report.amount, order.payment.provider, at, fee=report.fee, late=not wanted
    )  # fmt: skip
    if wanted:
        return [money, confirmed(order, at)]
    events: list[OrderEvent] = [money, refund(order, payment_id, report.amount, "late_capture", at)]
    if order.state == "paying":
        events.append(OrderRejected(occurred_at=at, order_id=order.order_id, reason="payment_amount_differs"))
    return events


def refunded(order: Order, refund_id: UUID, at: datetime) -> list[OrderEvent]:
    """The provider has paid a refund out; told twice, it is one."""
    payment = order.payment
    amount = payment.refunds.get(refund_id) if payment else None
    if payment is None or amount is None:
        return []
    return [
        PaymentRefunded(
            occurred_at=at, order_id=order.order_id, payment_id=payment.payment_id, refund_id=refund_id, amount=amount,
            currency=order.currency,
        )
    ]  # fmt: skip


def pay_back(order: Order, amount: Decimal, reason: str, at: datetime) -> list[OrderEvent]:
    """Ask for ``amount`` to be refunded."""
    payment = order.payment
    assert payment is not None
    request = refund(order, payment.payment_id, amount, reason, at)
    if not order.prepaid:
        return [request]
    done = PaymentRefunded(  # a channel that was paid pays back itself; there is no provider to ask
        occurred_at=at, order_id=order.order_id, payment_id=payment.payment_id, refund_id=request.refund_id,
        amount=amount, currency=order.currency,
    )  # fmt: skip
    return [request, done]


def refund(order: Order, payment_id: UUID, amount: Decimal, reason: str, at: datetime) -> RefundRequested:
    return RefundRequested(
        occurred_at=at, order_id=order.order_id, payment_id=payment_id,
        refund_id=uuid5(payment_id, f"refund/{order.version}"), amount=amount, currency=order.currency, reason=reason,
    )  # fmt: skip
