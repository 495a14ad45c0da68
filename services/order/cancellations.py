"""What is decided about what will not be delivered: cancelled by the buyer, refused or lost by the carrier.

What has left the warehouse is not cancelled. What the carrier is to collect must be given back by it first. No I/O, no
clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from services.order.payments.decisions import pay_back
from services.order.state import AT_CARRIER, ENDED, GONE, Cancellation, Order, Parcel
from shared.events.order import (
    CancellationRefused,
    CancellationRequested,
    CancelledLine,
    HeldUnits,
    OrderCancelled,
    OrderEvent,
    OrderLinesCancelled,
)
from shared.events.pricing import PricedLine
from shared.money import round_money, share


@dataclass(frozen=True)
class Refusal:
    """Why a command is not carried out."""

    reason: str
    field: str = ""


def cancel(order: Order, reason: str, at: datetime) -> list[OrderEvent] | Refusal:
    """End the order and give back what was paid. A payment still open is closed, or refunded if it was captured.

    With a parcel booked already, the carrier is asked to give it back first, and its answer decides.
    """
    if order.state == "cancelled":
        return []
    if order.state in ENDED:
        return Refusal(f"the order is {order.state} already")
    if order.cancellation is not None:
        return [] if order.cancellation.units is None else Refusal("a cancellation of lines is under way")
    gone = next((parcel for parcel in order.parcels if parcel.state in GONE), None)
    if gone is not None:
        return Refusal(f"parcel {gone.number} has left the warehouse: it can be returned, not cancelled")
    away = [parcel.number for parcel in order.parcels if parcel.state in AT_CARRIER]
    return _recall(order, None, reason, away, at) if away else _cancel(order, reason, at)


def cancel_lines(order: Order, units: Mapping[int, int], reason: str, at: datetime) -> list[OrderEvent] | Refusal:
    """Take units off lines of a confirmed order, and give back their share of what was paid, to the cent.

    What remains is always priced as a whole, so that all partial cancellations together give back the whole total.
    """
    if order.state != "confirmed":
        return Refusal(f"only lines of a confirmed order can be cancelled; this one is {order.state}")
    if order.cancellation is not None:
        return Refusal("a cancellation is under way")
    if (refusal := _too_many(order, units)) is not None:
        return refusal
    if _all_with(order, units) and not any(parcel.state in GONE for parcel in order.parcels):
        return cancel(order, "all_lines_cancelled", at)
    freed = _free(order, units)
    if isinstance(freed, Refusal):
        return freed
    away = {part.warehouse for part in freed or ()}
    booked = [one.number for one in order.parcels if one.warehouse in away and one.state in AT_CARRIER]
    return _recall(order, units, reason, booked, at) if booked else _take_off(order, units, freed, reason, at)


def conclude(order: Order, cancellation: Cancellation, at: datetime) -> list[OrderEvent]:
    """The carrier has given the parcels back: carry out what waited for that, if it still can be."""
    order.cancellation = None
    done = (
        cancel(order, cancellation.reason, at)
        if cancellation.units is None
        else cancel_lines(order, cancellation.units, cancellation.reason, at)
    )
    if isinstance(done, Refusal):  # meanwhile another parcel was collected or lost
        return [CancellationRefused(occurred_at=at, order_id=order.order_id)]
    return done


def give_up(order: Order, parcel: Parcel, at: datetime) -> list[OrderEvent]:
    """A parcel that the carrier never collected: it is asked to give it back, and what was paid for it goes back."""
    units = _lines_of(order, parcel)
    return _recall(order, None if _all_with(order, units) else units, "undeliverable", [parcel.number], at)


def nothing_left(order: Order, at: datetime) -> list[OrderEvent]:
    """Every parcel was lost, refused or cancelled: so is the order."""
    return _cancel(order, "nothing_left", at)


def points_left(order: Order) -> int:
    """The points that the order took, less those of cancelled units. Needs the lines where there are both."""
    return _Rest(order, order.cancelled_lines).points if order.points and order.cancelled_lines else order.points


def make_good(order: Order, parcel: Parcel, at: datetime) -> list[OrderEvent]:
    """Give back what was paid for a parcel that the carrier lost or did not take; with nothing else left, cancel."""
    reason = "lost" if parcel.state == "lost" else "undeliverable"
    units = _lines_of(order, parcel)
    if _all_with(order, units):
        parcel.made_good = True
        return _cancel(order, reason, at)
    back = () if parcel.state == "lost" else tuple(
        HeldUnits(sku=sku, warehouse=parcel.warehouse, quantity=quantity)
        for sku, quantity in sorted(parcel.items.items())
    )  # fmt: skip
    return _take_off(order, units, back, reason, at)


def _cancel(order: Order, reason: str, at: datetime) -> list[OrderEvent]:
    events: list[OrderEvent] = [OrderCancelled(occurred_at=at, order_id=order.order_id, reason=reason)]
    if order.payment is not None and order.payment.refundable > 0:
        events += pay_back(order, order.payment.refundable, "cancelled", at)
    return events


def _recall(
    order: Order, units: Mapping[int, int] | None, reason: str, parcels: list[int], at: datetime
) -> list[OrderEvent]:
    order.cancellation = Cancellation(units, reason, tuple(parcels))
    return [
        CancellationRequested(occurred_at=at, order_id=order.order_id, parcels=tuple(parcels), reason=reason)
    ]  # fmt: skip


def _lines(order: Order) -> dict[int, PricedLine]:
    assert order.priced_lines is not None
    return {line.line: line for line in order.priced_lines}


def _too_many(order: Order, units: Mapping[int, int]) -> Refusal | None:
    lines = _lines(order)
    for number, quantity in units.items():
        left = lines[number].quantity - order.cancelled_lines.get(number, 0) if number in lines else 0
        if quantity > left:
            return Refusal(f"line {number} has {left} left to cancel", field="lines")
    return None


def _after(order: Order, units: Mapping[int, int]) -> dict[int, int]:
    return dict(Counter(order.cancelled_lines) + Counter(units))


def _all_with(order: Order, units: Mapping[int, int]) -> bool:
    """Whether nothing is left once these units are cancelled, too."""
    after = _after(order, units)
    return all(after.get(number, 0) >= line.quantity for number, line in _lines(order).items())


def _free(order: Order, units: Mapping[int, int]) -> tuple[HeldUnits, ...] | Refusal | None:
    """The held units to set free: of parcels not booked yet first, of the last warehouse first; None: nobody knows."""
    if not order.parcels:
        return None
    lines = _lines(order)
    wanted: Counter[str] = Counter()
    for number, quantity in units.items():
        wanted[lines[number].sku] += quantity
    freed: list[HeldUnits] = []
    here = [parcel for parcel in order.parcels if parcel.state == "planned" or parcel.state in AT_CARRIER]
    for parcel in sorted(here, key=lambda one: (one.state != "planned", -one.number)):
        for sku in sorted(wanted):
            part = min(wanted[sku], parcel.items.get(sku, 0))
            if part > 0:
                freed.append(HeldUnits(sku=sku, warehouse=parcel.warehouse, quantity=part))
                wanted[sku] -= part
    gone = next((sku for sku, left in wanted.items() if left > 0), None)
    if gone is not None and any(parcel.state == "recalling" for parcel in order.parcels):
        return Refusal(f"the carrier is being asked for the parcel with {gone}: try again in a moment", "lines")
    if gone is not None:
        return Refusal(
            f"{wanted[gone]} of {gone} have left the warehouse: they can be returned, not cancelled", "lines"
        )
    return tuple(freed)


def _lines_of(order: Order, parcel: Parcel) -> dict[int, int]:
    """The units per line that a parcel holds, the lines' last units first: an order may name a SKU twice."""
    left = dict(parcel.items)
    units: dict[int, int] = {}
    for number, line in sorted(_lines(order).items(), reverse=True):
        part = min(left.get(line.sku, 0), line.quantity - order.cancelled_lines.get(number, 0))
        if part > 0:
            units[number] = part
            left[line.sku] -= part
    return units


def _take_off(
    order: Order, units: Mapping[int, int], freed: tuple[HeldUnits, ...] | None, reason: str, at: datetime
) -> list[OrderEvent]:
    before, after = _Rest(order, order.cancelled_lines), _Rest(order, _after(order, units))
    lines = _lines(order)
    cancelled = tuple(
        CancelledLine(
            line=number, sku=lines[number].sku, quantity=quantity,
            amount=before.total(lines[number]) - after.total(lines[number]),
        )
        for number, quantity in sorted(units.items())
    )  # fmt: skip
    amount = before.worth - after.worth
    events: list[OrderEvent] = [
        OrderLinesCancelled(
            occurred_at=at, order_id=order.order_id, lines=cancelled, amount=amount, currency=order.currency,
            reason=reason, allocations=freed, tax=before.tax - after.tax, discount=before.discount - after.discount,
            points_value=before.points_value - after.points_value, points=before.points - after.points,
        )
    ]  # fmt: skip
    if amount > 0 and order.payment is not None:
        events += pay_back(order, amount, "lines_cancelled", at)
    return events


class _Rest:
    """What is left of an order with some units cancelled. Differences of two of these sum exactly to the whole."""

    def __init__(self, order: Order, cancelled: Mapping[int, int]):
        self._order = order
        self._cancelled = cancelled
        lines = list(_lines(order).values())
        assert order.total is not None
        goods = sum((line.total for line in lines), Decimal(0))
        left = sum((self.total(line) for line in lines), Decimal(0))
        self.tax = sum((self._part(line, line.tax) for line in lines), Decimal(0))
        self.discount = sum((self._part(line, line.discount) for line in lines), Decimal(0))
        # Redeemed points are taken off in proportion.
        self.worth = round_money(order.total * left / goods, order.currency) if goods else Decimal(0)
        self.points_value = left - self.worth
        self.points = int((order.points * left / goods).quantize(Decimal(1), ROUND_HALF_UP)) if goods else 0

    def total(self, line: PricedLine) -> Decimal:
        """What the units that are left of a line cost."""
        return self._part(line, line.total)

    def _part(self, line: PricedLine, of: Decimal) -> Decimal:
        left = line.quantity - self._cancelled.get(line.line, 0)
        return share(of, left, line.quantity, self._order.currency)
