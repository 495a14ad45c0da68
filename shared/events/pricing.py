"""What pricing says: what each order costs, and what the price lists hold."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from shared.messages import Event, Value


class PricedLine(Value):
    """One line with its price. ``total`` = quantity times unit price, less ``discount``; ``tax`` is contained in it.

    ``price_list`` is absent where the channel set the price, ``coupon_discount`` (a part of ``discount``; the rest is
    the tier's) where no coupon had a share in it, and ``tax_percent`` where no rate is known.
    """

    line: int
    sku: str
    quantity: int
    unit_price: Decimal
    discount: Decimal
    total: Decimal
    tax: Decimal
    price_list: str | None = None
    coupon_discount: Decimal | None = None
    tax_percent: Decimal | None = None


class OrderPriced(Event):
    """What the order costs this customer; the coupon's use, if any, is held.

    ``total`` = the lines' totals, with ``points_value`` taken off; prices contain tax.
    """

    order_id: UUID
    currency: str
    tier: str
    lines: tuple[PricedLine, ...]
    discount: Decimal
    points_value: Decimal
    tax: Decimal
    total: Decimal
    coupon: str | None = None
    quote_id: UUID | None = None  # whose price this is; absent where it was priced when it came
    point_value: Decimal | None = None  # what a point is worth in this currency, in major units


class PriceRefused(Event):
    """No price can be given.

    ``reason`` is no_price, coupon_unknown, coupon_not_valid, coupon_minimum, coupon_used_up, points_exceed_total,
    quote_unknown, quote_differs, quote_expired or quote_used.
    """

    order_id: UUID
    reason: str
    detail: str = ""


class CouponReleased(Event):
    """The order's use of the coupon is given back."""

    order_id: UUID
    coupon: str


QuoteEvent = OrderPriced | PriceRefused | CouponReleased


class PriceChanged(Event):
    """The list price of a SKU in one price list, tax contained, from ``valid_from`` on."""

    sku: str
    price_list: str
    currency: str
    unit_price: Decimal
    valid_from: datetime


PriceEvent = PriceChanged


class LineDemanded(Event):
    """A line of an order, by SKU: what demand is counted from. Said by the demand process to itself."""

    sku: str
    order_id: UUID
    line: int
    quantity: int


class DemandMeasured(Event):
    """How many units of a SKU were asked for in a window of business time, whether or not there was stock.

    A signal, not a count: after a crash of the process that measures it, the window at hand may be wrong, the next is
    right. Of the same window and ``generation`` the event with more units holds, and any of a higher generation, which
    has counted anew from the start of the log, replaces those of a lower one.
    """

    sku: str
    window_start: datetime
    window_end: datetime
    units: int
    orders: int
    generation: int = 1


DemandEvent = DemandMeasured
