"""A large batch of orders costs in proportion to its size, however many SKUs it touches."""

from __future__ import annotations

import time

from services.inventory.decisions import Level, Stock, Warehouse, decide
from shared.events.inventory import StockHeld
from tests.support.orders import NOW, placed

WAREHOUSES = [Warehouse("BER", "DE", 100), Warehouse("LYO", "FR", 10), Warehouse("ROM", "IT", 50)]
LINES = 5
SKUS_PER_ORDER = 4


def seconds_for(orders: int) -> float:
    """To hold stock for so many orders of five lines, and to say the new levels: 500 orders over 2,000 SKUs."""
    skus = [f"SKU-{number}" for number in range(orders * SKUS_PER_ORDER)]
    given = Stock(
        WAREHOUSES,
        versions=dict.fromkeys(skus, 0),
        levels={sku: {one.code: Level(1000) for one in WAREHOUSES} for sku in skus},
    )
    asked = [
        placed(*((skus[(n * LINES + line) % len(skus)], 1) for line in range(LINES)), number=n) for n in range(orders)
    ]
    began = time.perf_counter()
    for order in asked:
        (answer,) = decide(given, order)
        assert isinstance(answer, StockHeld)
        given.evolve(answer)
    assert len(list(given.changed(NOW))) == len(skus)
    return time.perf_counter() - began


def test_four_times_the_orders_take_about_four_times_as_long():
    few, many = (min(seconds_for(orders) for _ in range(3)) for orders in (125, 500))
    assert many / few < 9, f"{few * 1000:.1f} ms for 125 orders, {many * 1000:.1f} ms for 500: quadratic is 16"
