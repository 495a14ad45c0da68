"""What pricing is asked, and how it says no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared.events.order import OrderLine, OrderPlaced


@dataclass(frozen=True)
class Ask:
    """What is to be priced. ``at`` is business time: prices, rates and coupons are those of then."""

    currency: str
    lines: Sequence[OrderLine]
    country: str
    at: datetime
    customer_id: UUID | None = None
    coupon: str | None = None
    points: int = 0

    @staticmethod
    def of(order: OrderPlaced) -> Ask:
        return Ask(
            order.currency, order.lines, order.destination.country, order.occurred_at, order.customer_id, order.coupon,
            order.points,
        )  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """Why there is no price; ``skus`` where single lines are to blame."""

    reason: str
    detail: str
    skus: tuple[str, ...] = ()
