"""Quotes that orders redeem: the buyer pays what was shown, whatever prices have become. No I/O, no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from services.pricing.asks import Ask, Refusal
from services.pricing.discounts import Coupon
from services.pricing.rules import Priced
from shared.events.order import OrderLine, OrderPlaced
from shared.events.pricing import PricedLine


@dataclass
class Quote:
    """What a buyer was shown. ``state``: open; held by ``order_id``; spent, when that order is confirmed."""

    quote_id: UUID
    ask: Ask
    priced: Priced
    valid_until: datetime
    state: str = "open"
    order_id: UUID | None = None


def redeem(
    quote: Quote | None, order: OrderPlaced, recorded_at: datetime, coupons: Mapping[str, Coupon]
) -> Priced | Refusal:
    """What ``order`` costs at the price it was quoted, or why it is not its to have.

    The quote's end is compared with when the order was recorded, so that waiting in a queue costs nobody the price.
    What the coupon takes off is as quoted, whatever its terms are now; that a use of it is left was not promised.
    """
    if quote is None:
        return Refusal("quote_unknown", f"there is no quote {order.quote_id}")
    ask, wanted = quote.ask, Ask.of(order)
    lines = _as_in(wanted.lines, quote.priced.lines)
    same = {
        "currency": ask.currency == wanted.currency,
        "lines": lines is not None,
        "country": ask.country == wanted.country,
        "customer_id": ask.customer_id == wanted.customer_id,
        "coupon": ask.coupon == wanted.coupon,
        "points": ask.points == wanted.points,
    }
    if lines is None or not all(same.values()):
        return Refusal(
            "quote_differs", f"not as quoted: {', '.join(name for name, is_so in same.items() if not is_so)}"
        )
    if recorded_at >= quote.valid_until:
        return Refusal("quote_expired", f"it was valid until {quote.valid_until.isoformat()}")
    if quote.state != "open":
        return Refusal("quote_used", "another order has used it")
    if ask.coupon is not None:
        if (coupon := coupons.get(ask.coupon)) is None:
            return Refusal("coupon_unknown", f"there is no coupon {ask.coupon}")
        if (refusal := coupon.used_up(ask.customer_id)) is not None:
            return refusal
    return replace(quote.priced, lines=lines)


def _as_in(wanted: Sequence[OrderLine], quoted: Sequence[PricedLine]) -> tuple[PricedLine, ...] | None:
    """The quoted lines in the order and with the numbers of those wanted; None if they are not the same lines.

    Lines are not merged: three lamps on one line and on two may differ by a cent.
    """
    left: dict[tuple[str, int], list[PricedLine]] = defaultdict(list)
    for line in reversed(quoted):
        left[line.sku, line.quantity].append(line)
    found: list[PricedLine] = []
    for line in wanted:
        alike = left[line.sku, line.quantity]
        if not alike or line.unit_price is not None:
            return None
        found.append(alike.pop().model_copy(update={"line": line.line}))
    return tuple(found) if len(found) == len(quoted) else None
