"""Orders and their answers, with memorable data: RED-LAMPs and BLUE-CUPs of Anna's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid5

from shared.events.customer import BuyerIdentified, BuyerRefused
from shared.events.inventory import Allocation, Shortage, StockHeld, StockRefused
from shared.events.order import (
    CancelledLine,
    Destination,
    OrderCancelled,
    OrderEvent,
    OrderExpired,
    OrderLine,
    OrderLinesCancelled,
    OrderPlaced,
    OrderRejected,
)
from shared.events.pricing import OrderPriced, PricedLine, PriceRefused

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANNA, HOME = UUID(int=1), UUID(int=2)


def order_id(number: int = 1) -> UUID:
    return uuid5(ANNA, f"order/{number}")


def placed(*lines: tuple[str, int], number: int = 1, country: str = "DE") -> OrderPlaced:
    asked = lines or (("RED-LAMP", 1), ("BLUE-CUP", 2))
    return OrderPlaced(
        occurred_at=NOW, order_id=order_id(number), channel="shop", external_reference=f"shop-{number}",
        currency="EUR", lines=tuple(OrderLine(line=n, sku=sku, quantity=q) for n, (sku, q) in enumerate(asked, 1)),
        destination=Destination(country=country),
    )  # fmt: skip


def ends(number: int = 1) -> Sequence[OrderEvent]:
    """Each way in which an order ends badly."""
    return (
        OrderRejected(occurred_at=NOW, order_id=order_id(number), reason="payment_declined"),
        OrderCancelled(occurred_at=NOW, order_id=order_id(number)),
        OrderExpired(occurred_at=NOW, order_id=order_id(number), waiting_for=("price",)),
    )


def lines_cancelled(*lines: tuple[str, int], number: int = 1) -> OrderLinesCancelled:
    return OrderLinesCancelled(
        occurred_at=NOW, order_id=order_id(number), amount=Decimal(0), currency="EUR",
        lines=tuple(
            CancelledLine(line=n, sku=sku, quantity=q, amount=Decimal(0)) for n, (sku, q) in enumerate(lines, 1)
        ),
    )  # fmt: skip


def identified(order: UUID | None = None) -> BuyerIdentified:
    return BuyerIdentified(occurred_at=NOW, order_id=order or order_id(), customer_id=ANNA, recipient_id=HOME)


def buyer_refused() -> BuyerRefused:
    return BuyerRefused(occurred_at=NOW, order_id=order_id(), reason="points", detail="100 asked, 20 there")


def held(order: UUID | None = None) -> StockHeld:
    """A lamp in Berlin, two cups in Graz."""
    lamp = Allocation(sku="RED-LAMP", warehouse="BER", quantity=1)
    cups = Allocation(sku="BLUE-CUP", warehouse="GRZ", quantity=2)
    return StockHeld(occurred_at=NOW, order_id=order or order_id(), allocations=(lamp, cups))


def stock_refused() -> StockRefused:
    shortage = Shortage(sku="RED-LAMP", wanted=2, available=1)
    return StockRefused(occurred_at=NOW, order_id=order_id(), shortages=(shortage,))


def priced_line(line: int, sku: str, quantity: int, total: str) -> PricedLine:
    return PricedLine(
        line=line, sku=sku, quantity=quantity, unit_price=Decimal(total) / quantity, discount=Decimal(0),
        total=Decimal(total), tax=Decimal(0),
    )  # fmt: skip


LAMP_AND_CUPS = (priced_line(1, "RED-LAMP", 1, "30.00"), priced_line(2, "BLUE-CUP", 2, "10.00"))


def priced(total: str = "40.00", lines: Sequence[PricedLine] = LAMP_AND_CUPS, order: UUID | None = None) -> OrderPriced:
    whole = sum((line.total for line in lines), Decimal(0))
    return OrderPriced(
        occurred_at=NOW, order_id=order or order_id(), currency="EUR", tier="base", lines=tuple(lines),
        discount=Decimal(0), points_value=whole - Decimal(total), tax=Decimal(0), total=Decimal(total),
    )  # fmt: skip


def price_refused() -> PriceRefused:
    return PriceRefused(occurred_at=NOW, order_id=order_id(), reason="coupon_used_up", detail="SPRING")
