"""What is booked: which entries an order's events make in the double-entry ledger. No I/O, no clock.

A transaction's amounts sum to zero; debits are positive, credits negative. What an order was worth stands in
``Order.sale`` and is taken back in parts that sum to it exactly, so that an order that ends leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from services.order.state import Order, Sale
from shared.events.customer import PointsSettled
from shared.events.inventory import StockIssued
from shared.events.order import (
    OrderCancelled,
    OrderConfirmed,
    OrderEvent,
    OrderLinesCancelled,
    ParcelBooked,
    ParcelRecalled,
    PaymentCaptured,
    PaymentRefunded,
)
from shared.money import round_money

Kind = Literal["asset", "liability", "income", "expense"]

ACCOUNTS: Mapping[str, tuple[Kind, str]] = {
    "cash": ("asset", "money that the payment provider, or the channel of a prepaid order, has for us"),
    "receivable": ("asset", "what buyers owe for confirmed orders; below zero, what they are owed"),
    "inventory": ("asset", "goods that left the warehouses, at cost; receipts are booked by purchasing"),
    "tax": ("liability", "value-added tax contained in what was sold"),
    "points_liability": ("liability", "points that customers may still redeem"),
    "carrier_payable": ("liability", "what carriers are owed for parcels"),
    "revenue": ("income", "goods sold, before discounts, without tax"),
    "discount": ("income", "tier and coupon discounts; lowers revenue"),
    "refunds": ("income", "what was sold and not delivered; lowers revenue"),
    "points_granted": ("income", "worth of the points that buyers earned; lowers revenue"),
    "cost_of_goods": ("expense", "moving-average cost of the goods that left"),
    "shipping": ("expense", "what carriers ask for"),
    "provider_fees": ("expense", "what payment providers keep"),
    "channel_fees": ("expense", "what channels keep of orders that they were paid for"),
}


@dataclass(frozen=True)
class Posting:
    """A balanced transaction in one currency: amounts by account, none of them zero."""

    kind: str
    order_id: UUID
    currency: str
    occurred_at: datetime
    amounts: Mapping[str, Decimal]


def post(order: Order, event: OrderEvent) -> list[Posting]:
    """What ``event`` means for the books; ``order`` is as it was before the event."""
    match event:
        case OrderConfirmed() if order.sale is not None:
            return _posting("sale", order, event.occurred_at, _sold(order.sale))
        case OrderLinesCancelled() if order.sale is not None:
            return _posting("cancellation", order, event.occurred_at, _taken_back(Sale.cancelled(event)))
        case OrderCancelled() if order.state == "confirmed" and order.sale is not None:
            return _posting("cancellation", order, event.occurred_at, _taken_back(order.sale))
        case PaymentCaptured(amount=amount, fee=fee):
            fees = "channel_fees" if order.prepaid else "provider_fees"
            money = {"cash": amount - fee, fees: fee, "receivable": -amount}
            return _posting("payment", order, event.occurred_at, money)
        case PaymentRefunded(amount=amount):
            return _posting("refund", order, event.occurred_at, {"receivable": amount, "cash": -amount})
        case ParcelBooked(price=price, currency=currency):
            return _posting("shipping", order, event.occurred_at, _carried(price), currency)
        case ParcelRecalled(price=price, currency=currency):
            return _posting("shipping", order, event.occurred_at, _carried(-price), currency)
        case _:
            return []


def post_issue(order: Order, issued: StockIssued) -> list[Posting]:
    """The cost of what left the warehouse, per currency that its goods were bought in; unknown costs are nothing."""
    costs: dict[str, Decimal] = {}
    for line in issued.lines:
        if line.unit_cost is not None and line.currency is not None:
            costs[line.currency] = costs.get(line.currency, Decimal(0)) + line.quantity * line.unit_cost
    return [
        posting
        for currency, cost in sorted(costs.items())
        for posting in _posting("goods", order, issued.occurred_at, _cost(round_money(cost, currency)), currency)
    ]


def post_points(order: Order, settled: PointsSettled) -> list[Posting]:
    """What the points earned are worth, at the value that they had when the order was priced."""
    value = round_money(settled.earned * (order.point_value or Decimal(0)), order.currency)
    amounts = {"points_granted": value, "points_liability": -value}
    return _posting("points", order, settled.occurred_at, amounts)


def _sold(sale: Sale) -> dict[str, Decimal]:
    return {
        "receivable": sale.due, "discount": sale.discount, "points_liability": sale.points_value, "tax": -sale.tax,
        "revenue": sale.tax - sale.goods,
    }  # fmt: skip


def _taken_back(sale: Sale) -> dict[str, Decimal]:
    back = {account: -amount for account, amount in _sold(sale).items()}
    back["refunds"] = back.pop("revenue")
    return back


def _carried(price: Decimal) -> dict[str, Decimal]:
    return {"shipping": price, "carrier_payable": -price}


def _cost(cost: Decimal) -> dict[str, Decimal]:
    return {"cost_of_goods": cost, "inventory": -cost}


def _posting(
    kind: str, order: Order, at: datetime, amounts: Mapping[str, Decimal], currency: str | None = None
) -> list[Posting]:
    some = {account: amount for account, amount in amounts.items() if amount}
    assert sum(some.values()) == 0, f"{kind} of order {order.order_id} does not balance: {some}"
    return [Posting(kind, order.order_id, currency or order.currency, at, some)] if some else []
