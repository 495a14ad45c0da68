"""What inventory says: stock held for orders, stock levels, and the product master."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from shared.messages import Event, Value


class Allocation(Value):
    """Units of one SKU held in one warehouse."""

    sku: str
    warehouse: str
    quantity: int


class StockHeld(Event):
    """All that the order asked for is held for it. The hold has no clock: the order decides.

    Said again after an ``OrderRestated``, with the units alone that had been missing.
    """

    order_id: UUID
    allocations: tuple[Allocation, ...]


class Shortage(Value):
    """``available`` over all warehouses, less than ``wanted``; ``known`` is false for a SKU that does not exist."""

    sku: str
    wanted: int
    available: int
    known: bool = True


class StockRefused(Event):
    """The order got nothing, because of these SKUs."""

    order_id: UUID
    shortages: tuple[Shortage, ...]


class StockReleased(Event):
    """What was held for the order is free again: all of it, or the cancelled part."""

    order_id: UUID
    allocations: tuple[Allocation, ...]


class IssuedLine(Value):
    """Units that left a warehouse, and what one of them had cost: its moving average, absent where nobody knows it."""

    sku: str
    warehouse: str
    quantity: int
    unit_cost: Decimal | None = None
    currency: str | None = None


class StockIssued(Event):
    """What was held for the order's ``parcel`` has left the warehouse with it."""

    order_id: UUID
    parcel: int
    lines: tuple[IssuedLine, ...]


HoldEvent = StockHeld | StockRefused | StockReleased | StockIssued


class WarehouseLevel(Value):
    warehouse: str
    on_hand: int
    reserved: int


class StockLevelChanged(Event):
    """The stock of a SKU as it is now, in absolute values: a later one replaces an earlier one."""

    sku: str
    levels: tuple[WarehouseLevel, ...]
    available: int  # over all warehouses: on hand less reserved


StockEvent = StockLevelChanged


class ItemRegistered(Event):
    """A product exists, or its master data changed: the whole of it, as it is now. Dimensions: weight in grams."""

    sku: str
    name: str
    category: str | None = None
    supplier: str | None = None
    unit: str = "piece"
    weight: int | None = None
    tax_class: str = "standard"
    active: bool = True


class ItemCostChanged(Event):
    """The moving-average cost of one unit."""

    sku: str
    unit_cost: Decimal
    currency: str


ItemEvent = ItemRegistered | ItemCostChanged
