"""What is decided: who gets which stock, and from where. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from shared.events.inventory import (
    Allocation,
    HoldEvent,
    IssuedLine,
    Shortage,
    StockHeld,
    StockIssued,
    StockLevelChanged,
    StockRefused,
    StockReleased,
    WarehouseLevel,
)
from shared.events.order import (
    CancelledLine,
    HeldUnits,
    OrderCancelled,
    OrderEvent,
    OrderExpired,
    OrderLinesCancelled,
    OrderPlaced,
    OrderRejected,
    OrderRestated,
    ParcelShipped,
)

Place = tuple[str, str]  # SKU, warehouse


@dataclass
class Level:
    """Units of a SKU in a warehouse; the database, too, keeps 0 <= reserved <= on_hand."""

    on_hand: int
    reserved: int = 0

    @property
    def available(self) -> int:
        return self.on_hand - self.reserved


@dataclass
class Hold:
    """What an order got. Every order seen has one: ``held``, ``refused``, ``released``, or ``issued``.

    It is ``issued`` when nothing is held any more and some of it left with a parcel.
    """

    state: str
    version: int = 0
    allocated: dict[Place, int] = field(default_factory=dict[Place, int])
    issued: dict[int, int] = field(default_factory=dict[int, int])  # units that left, by parcel; 0 where none were held


@dataclass(frozen=True)
class Cost:
    """What one unit of a SKU has cost: its moving average, absent where nobody knows it."""

    unit_cost: Decimal | None = None
    currency: str | None = None


@dataclass(frozen=True)
class Warehouse:
    code: str
    country: str
    priority: int


@dataclass
class Stock:
    """The part of the stock that a batch needs, and the holds of its orders."""

    warehouses: Sequence[Warehouse] = ()
    versions: dict[str, int] = field(default_factory=dict[str, int])  # known SKUs, with the version of their stock
    levels: dict[str, dict[str, Level]] = field(default_factory=dict[str, dict[str, Level]])  # by SKU and warehouse
    costs: dict[str, Cost] = field(default_factory=dict[str, Cost])
    holds: dict[UUID, Hold] = field(default_factory=dict[UUID, Hold])
    touched_skus: set[str] = field(default_factory=set[str])
    touched_orders: set[UUID] = field(default_factory=set[UUID])

    def available(self, sku: str) -> int:
        """Units of ``sku`` that can be promised, over all warehouses."""
        return sum(level.available for level in self.levels.get(sku, {}).values())

    def evolve(self, event: HoldEvent) -> int:
        """Apply ``event`` and return the version it gives its hold."""
        hold = self.holds.setdefault(event.order_id, Hold("released"))
        match event:
            case StockHeld(allocations=allocations):
                hold.state = "held"
                self._reserve(hold, allocations, sign=1)
            case StockRefused():
                hold.state = "refused"
            case StockReleased(allocations=allocations):
                self._reserve(hold, allocations, sign=-1)
                hold.state = "held" if hold.allocated else "issued" if any(hold.issued.values()) else "released"
            case StockIssued(parcel=parcel, lines=lines):
                for line in lines:
                    self.levels[line.sku][line.warehouse].on_hand -= line.quantity
                self._reserve(hold, lines, sign=-1)
                hold.issued[parcel] = sum(line.quantity for line in lines)
                hold.state = "issued" if lines and not hold.allocated else hold.state
        hold.version += 1
        self.touched_orders.add(event.order_id)
        return hold.version

    def _reserve(self, hold: Hold, parts: Iterable[Allocation | IssuedLine], *, sign: int) -> None:
        for part in parts:
            place = (part.sku, part.warehouse)
            self.levels[part.sku][part.warehouse].reserved += sign * part.quantity
            left = hold.allocated.get(place, 0) + sign * part.quantity
            if left:
                hold.allocated[place] = left
            else:
                del hold.allocated[place]
            self.touched_skus.add(part.sku)

    def move(self, sku: str, warehouse: str, quantity: int) -> None:
        """Units come in (positive) or go out (negative)."""
        self.levels.setdefault(sku, {}).setdefault(warehouse, Level(0)).on_hand += quantity
        self.touched_skus.add(sku)

    def changed(self, occurred_at: datetime) -> Iterable[tuple[StockLevelChanged, int]]:
        """The new level of every SKU touched, once each, with the version it gives the SKU's stock."""
        for sku in sorted(self.touched_skus):
            self.versions[sku] += 1
            levels = tuple(
                WarehouseLevel(warehouse=warehouse, on_hand=level.on_hand, reserved=level.reserved)
                for warehouse, level in sorted(self.levels.get(sku, {}).items())
            )
            event = StockLevelChanged(occurred_at=occurred_at, sku=sku, levels=levels, available=self.available(sku))
            yield event, self.versions[sku]


def decide(stock: Stock, event: OrderEvent) -> list[HoldEvent]:
    """An order gets all of its items or none; asking twice, late or in the wrong order changes nothing."""
    match event:
        case OrderPlaced():
            return [] if event.order_id in stock.holds else [_hold(stock, event)]
        case OrderLinesCancelled(lines=lines, allocations=named):
            hold = stock.holds.get(event.order_id, Hold("released"))
            return _release(stock, event, _cancelled(hold, lines) if named is None else _named(hold, named))
        case ParcelShipped():
            hold = stock.holds.get(event.order_id, Hold("released"))
            return [] if event.parcel in hold.issued else [_issue(stock, hold, event)]
        case OrderRejected() | OrderCancelled() | OrderExpired():
            hold = stock.holds.get(event.order_id)
            if hold is None:  # ended before it was seen: the row will say so when it comes
                return [StockReleased(occurred_at=event.occurred_at, order_id=event.order_id, allocations=())]
            return _release(stock, event, hold.allocated)
        case OrderRestated(goods=goods) if goods is not None:
            return _put_right(stock, event, goods)
        case _:
            return []


def _hold(stock: Stock, order: OrderPlaced) -> HoldEvent:
    wanted: Counter[str] = Counter()
    for line in order.lines:  # an order may name a SKU twice
        wanted[line.sku] += line.quantity
    shortages = tuple(
        Shortage(sku=sku, wanted=quantity, available=available, known=sku in stock.versions)
        for sku, quantity in sorted(wanted.items())
        if (available := stock.available(sku)) < quantity
    )
    if shortages:
        return StockRefused(occurred_at=order.occurred_at, order_id=order.order_id, shortages=shortages)
    allocations = allocate(stock, wanted, order.destination.country)
    return StockHeld(occurred_at=order.occurred_at, order_id=order.order_id, allocations=tuple(allocations))


def allocate(stock: Stock, wanted: Mapping[str, int], country: str) -> list[Allocation]:
    """Where to take the goods from, given that there are enough: as few parcels as possible, the nearest first.

    One warehouse that has everything; else, per SKU, one that has all of it; else the SKU is split.
    """
    nearest = sorted(stock.warehouses, key=lambda one: (one.country != country, one.priority, one.code))
    codes = [warehouse.code for warehouse in nearest]

    def available(sku: str, code: str) -> int:
        level = stock.levels.get(sku, {}).get(code)
        return level.available if level else 0

    for code in codes:
        if all(available(sku, code) >= quantity for sku, quantity in wanted.items()):
            return [Allocation(sku=sku, warehouse=code, quantity=n) for sku, n in sorted(wanted.items())]
    allocations: list[Allocation] = []
    for sku, quantity in sorted(wanted.items()):
        whole = [code for code in codes if available(sku, code) >= quantity]
        for code in whole[:1] or codes:
            part = min(quantity, available(sku, code))
            if part > 0:
                allocations.append(Allocation(sku=sku, warehouse=code, quantity=part))
                quantity -= part
    return allocations


def _cancelled(hold: Hold, lines: Iterable[CancelledLine]) -> dict[Place, int]:
    """The part of ``hold`` that cancelled lines set free: from its last warehouse first, never more than is held."""
    freed: dict[Place, int] = {}
    for line in lines:
        quantity = line.quantity
        for place in sorted(hold.allocated, reverse=True):
            part = min(quantity, hold.allocated[place] - freed.get(place, 0)) if place[0] == line.sku else 0
            if part > 0:
                freed[place] = freed.get(place, 0) + part
                quantity -= part
    return freed


def _named(hold: Hold, units: Iterable[HeldUnits]) -> dict[Place, int]:
    """The part of ``hold`` that the order itself sets free, never more than is held there."""
    wanted: Counter[Place] = Counter()
    for one in units:
        wanted[one.sku, one.warehouse] += one.quantity
    freed = {place: min(quantity, hold.allocated.get(place, 0)) for place, quantity in wanted.items()}
    return {place: part for place, part in freed.items() if part > 0}


def _release(stock: Stock, event: OrderEvent, freed: Mapping[Place, int]) -> list[HoldEvent]:
    if not freed:
        return []
    allocations = tuple(Allocation(sku=s, warehouse=w, quantity=n) for (s, w), n in sorted(freed.items()))
    return [StockReleased(occurred_at=event.occurred_at, order_id=event.order_id, allocations=allocations)]


def _put_right(stock: Stock, event: OrderRestated, goods: Iterable[HeldUnits]) -> list[HoldEvent]:
    """Release what is held beyond ``goods``, and hold what is missing as far as it is there, in its own warehouse.

    The order's parcels are planned by warehouse: what another one has would not help it.
    """
    held = stock.holds.get(event.order_id, Hold("released")).allocated
    wanted: Counter[Place] = Counter()
    for one in goods:
        wanted[one.sku, one.warehouse] += one.quantity
    surplus = {place: units - wanted[place] for place, units in held.items() if units > wanted[place]}
    missing = [
        Allocation(sku=sku, warehouse=code, quantity=part)
        for (sku, code), units in sorted(wanted.items())
        if (level := stock.levels.get(sku, {}).get(code)) is not None
        and (part := min(units - held.get((sku, code), 0), level.available)) > 0
    ]
    events = _release(stock, event, surplus)
    if missing:
        at, order = event.occurred_at, event.order_id
        events.append(StockHeld(occurred_at=at, order_id=order, allocations=tuple(missing)))
    return events


def _issue(stock: Stock, hold: Hold, shipped: ParcelShipped) -> StockIssued:
    """What is held for the parcel leaves with it, at its moving average, and never more than is held in its warehouse.

    The answer comes even if nothing is held, as for an order never seen: the order waits for it.
    """
    lines = [
        IssuedLine(
            sku=sku, warehouse=shipped.warehouse, quantity=part,
            unit_cost=stock.costs[sku].unit_cost, currency=stock.costs[sku].currency,
        )
        for sku, quantity in sorted(_packed(shipped).items())
        if (part := min(quantity, hold.allocated.get((sku, shipped.warehouse), 0))) > 0
    ]  # fmt: skip
    return StockIssued(
        occurred_at=shipped.occurred_at, order_id=shipped.order_id, parcel=shipped.parcel, lines=tuple(lines)
    )


def not_held(shipped: ParcelShipped, issued: StockIssued) -> dict[str, int]:
    """Units by SKU that are said to have left with the parcel although its order did not hold them there."""
    left = {line.sku: line.quantity for line in issued.lines}
    return {sku: n - left.get(sku, 0) for sku, n in sorted(_packed(shipped).items()) if n > left.get(sku, 0)}


def _packed(shipped: ParcelShipped) -> Counter[str]:
    units: Counter[str] = Counter()
    for item in shipped.items:
        units[item.sku] += item.quantity
    return units
