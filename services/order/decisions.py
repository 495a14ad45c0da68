"""What is decided: how an order goes from placed to its end. A process manager without I/O or clock.

Payments, parcels and cancellations have their decisions in modules of their own; all of them act on one ``Order``.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import uuid5

from services.order import cancellations
from services.order.payments.decisions import captured, confirmed
from services.order.shipping.decisions import handed_over, shipped
from services.order.state import FINAL, LEFT, Answer, Order
from shared.events.customer import BuyerRefused, PointsSettled
from shared.events.inventory import StockIssued, StockRefused
from shared.events.order import (
    CancellationRefused,
    OrderClosed,
    OrderEvent,
    OrderExpired,
    OrderRejected,
    OrderSettled,
    PaymentRequested,
)
from shared.events.pricing import PriceRefused


def decide(order: Order, answer: Answer) -> list[OrderEvent]:
    """What follows when ``order`` has heard ``answer``: the first no ends it, the last yes asks for the money."""
    if isinstance(answer, StockIssued | PointsSettled):
        return finish(order, answer.occurred_at)
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
        return [confirmed(order, at)]
    payment_id = uuid5(order.order_id, "payment")
    if order.prepaid:
        fee = min(order.channel_fee, total)
        return [captured(order, payment_id, total, order.channel, at, fee=fee), confirmed(order, at)]
    return [
        PaymentRequested(
            occurred_at=at, order_id=order.order_id, payment_id=payment_id, amount=total, currency=order.currency
        )
    ]


def expire(order: Order, at: datetime) -> list[OrderEvent]:
    """The deadline has passed. While a payment is open the provider is asked to close it first: its word decides."""
    if order.state == "placed":
        return [OrderExpired(occurred_at=at, order_id=order.order_id, waiting_for=order.missing)]
    if order.state == "paying" and order.payment is not None:
        order.payment.closing = True
    return []


def finish(order: Order, at: datetime) -> list[OrderEvent]:
    """What follows from where ``order`` has come to, whatever brought it there; empty once nothing does.

    A confirmed order makes good what the carrier lost or refused, carries out the cancellation that waited for its
    parcels, is settled when all of it has been delivered and no refund is open, and closed when inventory and customer
    have answered that.
    """
    if order.state != "confirmed":
        return []
    if order.fulfilment == "immediate" and any(parcel.state == "planned" for parcel in order.parcels):
        return handed_over(order, None, at)
    failed = next((one for one in order.parcels if one.state in ("lost", "refused") and not one.made_good), None)
    if failed is not None:
        return cancellations.make_good(order, failed, at)
    if order.cancellation is not None:
        if order.cancellation.too_late is not None:
            number = order.cancellation.too_late
            return [CancellationRefused(occurred_at=at, order_id=order.order_id, parcel=number)]
        if any(parcel.state == "recalling" for parcel in order.parcels):
            return []
        return cancellations.conclude(order, order.cancellation, at)
    if not order.settled:
        return _settle(order, at)
    issued = all(parcel.issued for parcel in order.parcels if parcel.state in LEFT)
    return [OrderClosed(occurred_at=at, order_id=order.order_id)] if order.points_settled and issued else []


def _settle(order: Order, at: datetime) -> list[OrderEvent]:
    if not all(parcel.state in FINAL for parcel in order.parcels):
        return []
    if not any(parcel.state == "delivered" for parcel in order.parcels):
        return cancellations.nothing_left(order, at) if order.parcels else []
    if order.payment is not None and order.payment.refunds:
        return []
    assert order.customer_id is not None
    amount = (order.total or Decimal(0)) - order.cancelled_amount
    return [
        OrderSettled(
            occurred_at=at, order_id=order.order_id, customer_id=order.customer_id, amount=amount,
            currency=order.currency,
        )
    ]  # fmt: skip


def remind(order: Order, at: datetime) -> list[OrderEvent]:
    """Say again what inventory and customer have not answered: an older release of theirs may have passed over it."""
    if order.state != "confirmed" or not order.settled:
        return []
    said: list[OrderEvent] = [shipped(order, one, at) for one in order.parcels if one.state in LEFT and not one.issued]
    return said if order.points_settled else [*said, *_settle(order, at)]
