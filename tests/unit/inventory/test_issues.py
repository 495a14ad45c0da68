"""Given held stock, when a parcel is shipped, then what is held for it leaves once; every event is sent twice."""

from __future__ import annotations

from decimal import Decimal

import pytest

from services.inventory.decisions import Cost, Hold, Level, Stock, Warehouse, decide, not_held
from shared.events.inventory import Allocation, HoldEvent, IssuedLine, StockIssued, StockReleased
from shared.events.order import HeldUnits, OrderEvent, ParcelItem, ParcelShipped
from tests.support.orders import NOW, ends, lines_cancelled, order_id, placed

BERLIN, LYON = Warehouse("BER", "DE", 10), Warehouse("LYO", "FR", 20)
COSTS = {"RED-LAMP": Cost(Decimal("12.50"), "EUR"), "BLUE-CUP": Cost()}


def stock(**levels: dict[str, int]) -> Stock:
    """Units on hand by SKU (RED_LAMP) and warehouse. A RED-LAMP has cost 12.50, a BLUE-CUP nobody knows what."""
    skus = {sku.replace("_", "-"): places for sku, places in levels.items()}
    return Stock(
        [BERLIN, LYON],
        versions=dict.fromkeys(skus, 0),
        levels={sku: {code: Level(units) for code, units in places.items()} for sku, places in skus.items()},
        costs={sku: COSTS[sku] for sku in skus},
    )


def when(given: Stock, *events: OrderEvent, times: int = 2) -> list[HoldEvent]:
    """What is answered to these events, each sent so many times."""
    answers: list[HoldEvent] = []
    for event in [one for one in events for _ in range(times)]:
        for answer in decide(given, event):
            given.evolve(answer)
            answers.append(answer)
    for level in (level for places in given.levels.values() for level in places.values()):
        assert 0 <= level.reserved <= level.on_hand
    return answers


def shipped(*items: tuple[str, int], parcel: int = 1, warehouse: str = "BER", number: int = 1) -> ParcelShipped:
    return ParcelShipped(
        occurred_at=NOW, order_id=order_id(number), parcel=parcel, warehouse=warehouse, carrier="swift",
        items=tuple(ParcelItem(sku=sku, quantity=quantity) for sku, quantity in items),
    )  # fmt: skip


def issues(*lines: tuple[str, str, int], parcel: int = 1) -> StockIssued:
    return StockIssued(
        occurred_at=NOW, order_id=order_id(), parcel=parcel,
        lines=tuple(
            IssuedLine(
                sku=sku, warehouse=code, quantity=n, unit_cost=COSTS[sku].unit_cost, currency=COSTS[sku].currency
            )
            for sku, code, n in lines
        ),
    )  # fmt: skip


def releases(*allocations: tuple[str, str, int]) -> StockReleased:
    parts = tuple(Allocation(sku=sku, warehouse=warehouse, quantity=n) for sku, warehouse, n in allocations)
    return StockReleased(occurred_at=NOW, order_id=order_id(), allocations=parts)


BOTH = (("RED-LAMP", 1), ("BLUE-CUP", 2))


def test_a_shipped_parcel_takes_along_what_was_held_for_it_at_its_cost():
    given = stock(RED_LAMP={"BER": 3}, BLUE_CUP={"BER": 5})
    when(given, placed(*BOTH))
    assert when(given, shipped(*BOTH)) == [issues(("BLUE-CUP", "BER", 2), ("RED-LAMP", "BER", 1))]
    assert given.levels == {"RED-LAMP": {"BER": Level(2, 0)}, "BLUE-CUP": {"BER": Level(3, 0)}}
    assert given.holds[order_id()] == Hold("issued", 2, issued={1: 3})


def test_the_two_parcels_of_a_split_order_are_issued_each_from_its_warehouse():
    given = stock(RED_LAMP={"BER": 1, "LYO": 2})
    when(given, placed(("RED-LAMP", 3)))
    first = when(given, shipped(("RED-LAMP", 2), parcel=2, warehouse="LYO"))
    assert (first, given.holds[order_id()].state) == ([issues(("RED-LAMP", "LYO", 2), parcel=2)], "held")
    second = when(given, shipped(("RED-LAMP", 1)))
    assert (second, given.holds[order_id()].state) == ([issues(("RED-LAMP", "BER", 1))], "issued")
    assert given.holds[order_id()].version == 3


def test_a_parcel_told_again_after_its_neighbour_takes_nothing_of_the_neighbours():
    given = stock(RED_LAMP={"BER": 4})
    when(given, placed(("RED-LAMP", 4)))
    answers = when(given, shipped(("RED-LAMP", 1)), shipped(("RED-LAMP", 1), parcel=2), shipped(("RED-LAMP", 1)))
    assert answers == [issues(("RED-LAMP", "BER", 1)), issues(("RED-LAMP", "BER", 1), parcel=2)]
    assert given.levels["RED-LAMP"]["BER"] == Level(2, 2)


def test_the_same_sku_twice_in_a_parcel_is_one_line():
    given = stock(RED_LAMP={"BER": 3})
    when(given, placed(("RED-LAMP", 3)))
    assert when(given, shipped(("RED-LAMP", 1), ("RED-LAMP", 2))) == [issues(("RED-LAMP", "BER", 3))]


@pytest.mark.parametrize("end", ends(), ids=lambda end: type(end).__name__)
def test_an_order_whose_goods_have_left_has_nothing_to_give_back(end: OrderEvent):
    given = stock(RED_LAMP={"BER": 1}, BLUE_CUP={"BER": 2})
    when(given, placed(*BOTH), shipped(*BOTH))
    assert when(given, end) == []
    assert given.holds[order_id()].state == "issued"


@pytest.mark.parametrize("end", ends(), ids=lambda end: type(end).__name__)
def test_an_order_that_ends_between_two_parcels_gives_back_the_rest(end: OrderEvent):
    given = stock(RED_LAMP={"BER": 1}, BLUE_CUP={"LYO": 2})
    when(given, placed(*BOTH), shipped(("RED-LAMP", 1)))
    assert when(given, end) == [releases(("BLUE-CUP", "LYO", 2))]
    assert given.holds[order_id()] == Hold("issued", 3, issued={1: 1})
    assert when(given, shipped(("BLUE-CUP", 2), parcel=2, warehouse="LYO")) == [issues(parcel=2)]
    assert given.levels["BLUE-CUP"]["LYO"] == Level(2, 0)


def test_a_parcel_never_takes_more_than_is_held_for_its_order():
    given = stock(RED_LAMP={"BER": 9, "LYO": 9}, BLUE_CUP={"BER": 9})
    when(given, placed(("RED-LAMP", 2)), placed(("RED-LAMP", 4), ("BLUE-CUP", 1), number=2))
    parcel = shipped(("RED-LAMP", 3), ("BLUE-CUP", 1))
    (issued,) = when(given, parcel)
    assert issued == issues(("RED-LAMP", "BER", 2))
    assert isinstance(issued, StockIssued)
    assert not_held(parcel, issued) == {"RED-LAMP": 1, "BLUE-CUP": 1}
    assert given.levels["RED-LAMP"] == {"BER": Level(7, 4), "LYO": Level(9)}


def test_a_parcel_from_a_warehouse_where_nothing_is_held_takes_nothing():
    given = stock(RED_LAMP={"BER": 1, "LYO": 1})
    when(given, placed(("RED-LAMP", 1)))
    assert when(given, shipped(("RED-LAMP", 1), warehouse="LYO")) == [issues()]
    assert given.holds[order_id()].state == "held"


def test_a_parcel_of_an_order_never_seen_is_answered_so_that_the_order_goes_on():
    given = stock(RED_LAMP={"BER": 1})
    assert when(given, shipped(("RED-LAMP", 1)), placed(("RED-LAMP", 1))) == [issues()]
    assert given.holds[order_id()] == Hold("released", 1, issued={1: 0})


def test_a_parcel_of_a_cancelled_order_takes_nothing():
    given = stock(RED_LAMP={"BER": 1})
    when(given, placed(("RED-LAMP", 1)), ends()[1])
    assert when(given, shipped(("RED-LAMP", 1))) == [issues()]
    assert given.holds[order_id()].state == "released"
    assert given.levels["RED-LAMP"]["BER"] == Level(1)


def test_what_was_cancelled_before_does_not_leave():
    given = stock(RED_LAMP={"BER": 1}, BLUE_CUP={"BER": 2})
    when(given, placed(*BOTH))
    when(given, lines_cancelled(("BLUE-CUP", 1)), times=1)
    assert when(given, shipped(*BOTH)) == [issues(("BLUE-CUP", "BER", 1), ("RED-LAMP", "BER", 1))]
    assert given.levels["BLUE-CUP"]["BER"] == Level(1, 0)


def units(*held: tuple[str, str, int]) -> tuple[HeldUnits, ...]:
    return tuple(HeldUnits(sku=sku, warehouse=warehouse, quantity=n) for sku, warehouse, n in held)


def test_a_cancellation_that_names_its_units_frees_exactly_these():
    given = stock(RED_LAMP={"BER": 1, "LYO": 1})
    when(given, placed(("RED-LAMP", 2)))
    cancelled = lines_cancelled(("RED-LAMP", 1)).model_copy(update={"allocations": units(("RED-LAMP", "BER", 1))})
    assert when(given, cancelled) == [releases(("RED-LAMP", "BER", 1))]


def test_a_cancellation_that_names_no_units_frees_none():
    given = stock(RED_LAMP={"BER": 2})
    when(given, placed(("RED-LAMP", 2)), shipped(("RED-LAMP", 1)))
    lost = lines_cancelled(("RED-LAMP", 1)).model_copy(update={"reason": "lost", "allocations": ()})
    assert when(given, lost) == []
    assert given.levels["RED-LAMP"]["BER"] == Level(1, 1)


def test_a_cancellation_frees_no_more_than_is_held_where_it_says():
    given = stock(RED_LAMP={"BER": 1, "LYO": 1})
    when(given, placed(("RED-LAMP", 2)))
    named = units(("RED-LAMP", "BER", 1), ("RED-LAMP", "BER", 1), ("BLUE-CUP", "LYO", 1))
    cancelled = lines_cancelled(("RED-LAMP", 2)).model_copy(update={"allocations": named})
    assert when(given, cancelled) == [releases(("RED-LAMP", "BER", 1))]
    assert given.holds[order_id()].allocated == {("RED-LAMP", "LYO"): 1}
