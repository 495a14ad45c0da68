"""What is decided: what others should hold for an order, and in what they differ. No I/O, no clock.

An order is judged at rest only, and where its own knowledge is complete: of what another service may yet be about to
do nothing is expected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from services.order.cancellations import points_left
from services.order.state import FINAL, LEFT, Order
from shared.events.order import HeldUnits, OrderRestated

Place = tuple[str, str]  # SKU, warehouse
OVER = frozenset({"rejected", "cancelled", "expired"})
SOLD = frozenset({"confirmed", "closed"})
MOST_REPAIRS = 6  # tries, at doubling distances; what is left then is for somebody to look into


@dataclass(frozen=True)
class Due:
    """What should be held: units by place, points, and whether coupon and quote are the order's own.

    None where nothing can be said now.
    """

    goods: Mapping[Place, int] | None
    points: int | None
    coupon: bool


@dataclass(frozen=True)
class Held:
    """What is held for one order, as the others say."""

    goods: Mapping[Place, int] = field(default_factory=dict[Place, int])
    points: int = 0
    coupon: str | None = None
    quote: bool = False


@dataclass(frozen=True)
class Difference:
    """``kind``: stock, points, coupon, quote, books. ``mendable``: saying the order again may put it right."""

    kind: str
    expected: str
    found: str
    mendable: bool = True


@dataclass(frozen=True)
class Money:
    """Of one order, in its currency: what its payment has kept, and what the ledger has of that."""

    kept: Decimal
    booked: Decimal


def due(order: Order) -> Due | None:
    """What should be held for ``order``; None while it is open: then answers and deadlines decide."""
    if order.state in OVER:
        return Due({}, 0, coupon=False)
    if order.state not in SOLD:
        return None
    return Due(_goods(order), _points(order), coupon=True)


def _goods(order: Order) -> Mapping[Place, int] | None:
    """The goods of parcels that have not left. None while inventory has not told what left: that is not surplus."""
    if not order.parcels or any(one.state in LEFT and not one.issued for one in order.parcels):
        return None  # without parcels: confirmed by a release that planned none
    goods: Counter[Place] = Counter()
    for parcel in order.parcels:
        if parcel.state not in FINAL | LEFT:
            for sku, units in parcel.items.items():
                goods[sku, parcel.warehouse] += units
    return goods


def _points(order: Order) -> int | None:
    """Those that it took, less those of cancelled units; none any more once they are settled."""
    if order.points_settled:
        return 0
    return None if order.settled or not order.parcels else points_left(order)


def differences(order: Order, coupon: str | None, held: Held, money: Money) -> list[Difference]:
    """In what the others differ from ``order``, which asked for ``coupon``."""
    wanted = due(order)
    if wanted is None:
        return []
    found: list[Difference] = []
    if wanted.goods is not None and dict(wanted.goods) != dict(held.goods):
        found.append(Difference("stock", _listed(wanted.goods), _listed(held.goods)))
    if wanted.points is not None and wanted.points != held.points:
        surplus = held.points > wanted.points and not order.points_settled
        found.append(Difference("points", str(wanted.points), str(held.points), mendable=surplus))
    if held.coupon is not None and not wanted.coupon:
        found.append(Difference("coupon", "none", held.coupon))
    if coupon is not None and held.coupon is None and wanted.coupon:
        found.append(Difference("coupon", coupon, "none", mendable=False))
    if held.quote:
        found.append(Difference("quote", "spent" if wanted.coupon else "open", "held"))
    if money.kept != money.booked:
        found.append(Difference("books", f"{money.kept:f}", f"{money.booked:f}", mendable=False))
    return found


def restated(order: Order, at: datetime) -> OrderRestated:
    """What the order has now, for those that differ. ``order`` is one for which something is ``due``."""
    wanted = due(order)
    assert wanted is not None
    goods = None if wanted.goods is None else tuple(
        HeldUnits(sku=sku, warehouse=warehouse, quantity=units)
        for (sku, warehouse), units in sorted(wanted.goods.items())
    )  # fmt: skip
    points = None if order.points_settled else wanted.points  # what was settled is spent, and not given back
    return OrderRestated(
        occurred_at=at, order_id=order.order_id, state=order.state, goods=goods, points=points,
        keeps_coupon=wanted.coupon,
    )  # fmt: skip


def held_units(units: Iterable[HeldUnits]) -> Mapping[Place, int]:
    return {(one.sku, one.warehouse): one.quantity for one in units}


def _listed(goods: Mapping[Place, int]) -> str:
    listed = ", ".join(f"{sku} {units} in {code}" for (sku, code), units in sorted(goods.items()))
    return listed[:500] or "none"
