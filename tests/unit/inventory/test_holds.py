"""Given stock, when an order event comes, then it is answered once; every event is sent twice."""

from __future__ import annotations

from decimal import Decimal

import pytest

from services.inventory.decisions import Hold, Level, Stock, Warehouse, decide
from shared.events.inventory import Allocation, HoldEvent, Shortage, StockHeld, StockRefused, StockReleased
from shared.events.order import OrderConfirmed, OrderEvent
from tests.support.orders import NOW, ends, identified, lines_cancelled, order_id, placed

BERLIN, LYON, ROME = Warehouse("BER", "DE", 100), Warehouse("LYO", "FR", 10), Warehouse("ROM", "IT", 50)


def stock(**levels: dict[str, int]) -> Stock:
    """Units on hand by SKU (RED_LAMP) and warehouse."""
    skus = {sku.replace("_", "-"): places for sku, places in levels.items()}
    return Stock(
        warehouses=[ROME, LYON, BERLIN],
        versions=dict.fromkeys(skus, 0),
        levels={sku: {code: Level(units) for code, units in places.items()} for sku, places in skus.items()},
    )


def all_levels(given: Stock) -> list[Level]:
    return [level for places in given.levels.values() for level in places.values()]


def when(given: Stock, *events: OrderEvent) -> list[HoldEvent]:
    """What is answered to these events, each sent twice."""
    answers: list[HoldEvent] = []
    for event in [one for one in events for _ in range(2)]:
        for answer in decide(given, event):
            given.evolve(answer)
            answers.append(answer)
    for level in all_levels(given):
        assert 0 <= level.reserved <= level.on_hand
    return answers


def holds(*allocations: tuple[str, str, int], number: int = 1) -> StockHeld:
    parts = tuple(Allocation(sku=sku, warehouse=warehouse, quantity=n) for sku, warehouse, n in allocations)
    return StockHeld(occurred_at=NOW, order_id=order_id(number), allocations=parts)


def releases(*allocations: tuple[str, str, int], number: int = 1) -> StockReleased:
    return StockReleased.model_validate(holds(*allocations, number=number).model_dump())


def refuses(*shortages: Shortage, number: int = 1) -> StockRefused:
    return StockRefused(occurred_at=NOW, order_id=order_id(number), shortages=shortages)


def test_an_order_gets_all_its_items():
    given = stock(RED_LAMP={"BER": 1}, BLUE_CUP={"BER": 5})
    assert when(given, placed()) == [holds(("BLUE-CUP", "BER", 2), ("RED-LAMP", "BER", 1))]
    assert given.levels["BLUE-CUP"]["BER"] == Level(5, 2)


def test_an_order_gets_nothing_when_one_item_is_missing():
    given = stock(RED_LAMP={"BER": 1}, BLUE_CUP={"BER": 1})
    assert when(given, placed()) == [refuses(Shortage(sku="BLUE-CUP", wanted=2, available=1))]
    assert not given.touched_skus


def test_an_unknown_sku_is_refused_and_named():
    given = stock(RED_LAMP={"BER": 1})
    expected = Shortage(sku="GREEN-HAT", wanted=1, available=0, known=False)
    assert when(given, placed(("GREEN-HAT", 1), ("RED-LAMP", 1))) == [refuses(expected)]


def test_the_same_sku_on_two_lines_is_counted_together():
    given = stock(RED_LAMP={"BER": 5})
    twice = placed(("RED-LAMP", 3), ("RED-LAMP", 3))
    assert when(given, twice) == [refuses(Shortage(sku="RED-LAMP", wanted=6, available=5))]
    assert when(stock(RED_LAMP={"BER": 6}), twice) == [holds(("RED-LAMP", "BER", 6))]


def test_two_buyers_want_the_last_lamp_and_one_gets_it():
    given = stock(RED_LAMP={"BER": 1})
    answers = when(given, placed(("RED-LAMP", 1)), placed(("RED-LAMP", 1), number=2))
    shortage = Shortage(sku="RED-LAMP", wanted=1, available=0)
    assert answers == [holds(("RED-LAMP", "BER", 1)), refuses(shortage, number=2)]


@pytest.mark.parametrize("end", ends(), ids=lambda end: type(end).__name__)
def test_an_ended_order_gives_everything_back_once(end: OrderEvent):
    given = stock(RED_LAMP={"BER": 1}, BLUE_CUP={"BER": 2})
    held = holds(("BLUE-CUP", "BER", 2), ("RED-LAMP", "BER", 1))
    assert when(given, placed(), end) == [held, releases(("BLUE-CUP", "BER", 2), ("RED-LAMP", "BER", 1))]
    assert given.holds[order_id()] == Hold("released", 2)


@pytest.mark.parametrize("end", ends(), ids=lambda end: type(end).__name__)
def test_an_order_that_ended_before_it_was_seen_holds_nothing(end: OrderEvent):
    given = stock(RED_LAMP={"BER": 1}, BLUE_CUP={"BER": 2})
    assert when(given, end, placed()) == [releases()]
    assert given.holds[order_id()] == Hold("released", 1)


@pytest.mark.parametrize("end", ends(), ids=lambda end: type(end).__name__)
def test_a_refused_order_has_nothing_to_give_back(end: OrderEvent):
    given = stock(RED_LAMP={"BER": 1}, BLUE_CUP={})
    given.versions["BLUE-CUP"] = 0
    assert when(given, placed(), end) == [refuses(Shortage(sku="BLUE-CUP", wanted=2, available=0))]


def test_a_cancelled_line_gives_back_its_part_only():
    given = stock(RED_LAMP={"BER": 1}, BLUE_CUP={"BER": 2})
    cancelled = lines_cancelled(("BLUE-CUP", 1))
    answers: list[HoldEvent] = []
    for event in (placed(), cancelled):  # once only: the kernel drops an event that comes twice
        for answer in decide(given, event):
            given.evolve(answer)
            answers.append(answer)
    assert answers[1:] == [releases(("BLUE-CUP", "BER", 1))]
    assert when(given, *ends()) == [releases(("BLUE-CUP", "BER", 1), ("RED-LAMP", "BER", 1))]
    assert all(level.reserved == 0 for level in all_levels(given))


def test_a_cancellation_never_frees_more_than_is_held():
    given = stock(RED_LAMP={"BER": 1, "LYO": 1})
    when(given, placed(("RED-LAMP", 2)))
    assert decide(given, lines_cancelled(("RED-LAMP", 2), ("RED-LAMP", 2))) == [
        releases(("RED-LAMP", "BER", 1), ("RED-LAMP", "LYO", 1))
    ]


def test_lines_of_an_order_never_seen_free_nothing():
    assert when(stock(RED_LAMP={"BER": 1}), lines_cancelled(("RED-LAMP", 1))) == []


def test_what_was_freed_can_be_sold_again():
    given = stock(RED_LAMP={"BER": 1})
    cancelled = ends()[1]
    answers = when(given, placed(("RED-LAMP", 1)), cancelled, placed(("RED-LAMP", 1), number=2))
    assert answers[-1] == holds(("RED-LAMP", "BER", 1), number=2)


def test_what_is_not_about_stock_is_not_answered():
    given = stock(RED_LAMP={"BER": 1})
    confirmed = OrderConfirmed(
        occurred_at=NOW, order_id=order_id(), customer_id=identified().customer_id,
        recipient_id=identified().recipient_id, total=Decimal(0), currency="EUR",
    )  # fmt: skip
    assert when(given, confirmed) == []


def test_a_warehouse_that_has_everything_wins_over_a_nearer_one_that_has_a_part():
    given = stock(RED_LAMP={"BER": 1, "LYO": 1}, BLUE_CUP={"LYO": 2})
    assert when(given, placed()) == [holds(("BLUE-CUP", "LYO", 2), ("RED-LAMP", "LYO", 1))]


def test_the_warehouse_in_the_buyers_country_comes_first():
    given = stock(RED_LAMP={"BER": 1, "LYO": 1, "ROM": 1})
    assert when(given, placed(("RED-LAMP", 1), country="IT")) == [holds(("RED-LAMP", "ROM", 1))]


def test_among_foreign_warehouses_the_one_of_highest_priority_comes_first():
    given = stock(RED_LAMP={"BER": 1, "LYO": 1, "ROM": 1})
    assert when(given, placed(("RED-LAMP", 1), country="SE")) == [holds(("RED-LAMP", "LYO", 1))]


def test_what_only_the_total_suffices_for_is_split_over_three_warehouses():
    given = stock(RED_LAMP={"BER": 2, "LYO": 2, "ROM": 2})
    expected = holds(("RED-LAMP", "BER", 2), ("RED-LAMP", "LYO", 2), ("RED-LAMP", "ROM", 1))
    assert when(given, placed(("RED-LAMP", 5))) == [expected]


def test_a_sku_that_fits_into_one_warehouse_is_not_split():
    given = stock(RED_LAMP={"BER": 1, "LYO": 3}, BLUE_CUP={"ROM": 1})
    expected = holds(("BLUE-CUP", "ROM", 1), ("RED-LAMP", "LYO", 3))
    assert when(given, placed(("RED-LAMP", 3), ("BLUE-CUP", 1))) == [expected]


def test_what_others_hold_is_not_allocated_again():
    given = stock(RED_LAMP={"BER": 2, "LYO": 2})
    when(given, placed(("RED-LAMP", 1), number=2))
    assert when(given, placed(("RED-LAMP", 2))) == [holds(("RED-LAMP", "LYO", 2))]


def test_a_batch_says_the_last_level_of_each_sku_once():
    given = stock(RED_LAMP={"BER": 5, "LYO": 1}, BLUE_CUP={"BER": 2})
    given.versions["RED-LAMP"] = 7
    when(given, placed(("RED-LAMP", 1)), placed(("RED-LAMP", 2), number=2))
    ((level, version),) = given.changed(NOW)
    assert (level.sku, level.available, version) == ("RED-LAMP", 3, 8)
    assert [(one.warehouse, one.on_hand, one.reserved) for one in level.levels] == [("BER", 5, 3), ("LYO", 1, 0)]
