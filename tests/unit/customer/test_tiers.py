"""Tiers follow the points of 365 days of business time, unless somebody pinned them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid5

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from services.customer import decisions, tiers
from services.customer.decisions import dated, decide, review_tier
from services.customer.points import Entry
from services.customer.registry import Customer, Identification, Outcome, Registry, ReviewSet
from services.customer.tiers import THRESHOLDS, WINDOW, Standing, standing
from shared.events.customer import TierChanged
from shared.events.order import OrderSettled

START = datetime(2010, 1, 1, 12, 30, tzinfo=UTC)
ALICE = UUID(int=0xA11CE)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def given(**alice: object) -> Registry:
    return Registry(customers={ALICE: Customer(ALICE, **alice)})  # pyright: ignore[reportArgumentType]


def settle(registry: Registry, amount: int, on: float) -> list[TierChanged]:
    """An order is settled, and said to be once more; returns what that makes of the tier."""
    order = uuid5(ALICE, str(len(registry.orders)))
    registry.orders[order] = Identification("identified", 1, ALICE)
    event = OrderSettled(occurred_at=day(on), order_id=order, customer_id=ALICE, amount=Decimal(amount), currency="EUR")
    said: list[TierChanged] = []
    for _ in range(2):
        registry.advance(event.occurred_at)
        said += evolved(registry, decide(registry, event))
    return said


def evolved(registry: Registry, outcomes: list[Outcome]) -> list[TierChanged]:
    for outcome in outcomes:
        registry.evolve(outcome)
    return [one for one in outcomes if isinstance(one, TierChanged)]


def read(registry: Registry, on: float) -> None:
    """All that was settled before ``on`` has been read."""
    registry.advance(day(on))
    registry.read_to = registry.clock


def review(registry: Registry, on: float) -> list[TierChanged]:
    """Business time comes to ``on`` in every partition, and the worker looks until nothing is due."""
    read(registry, on)
    said: list[TierChanged] = []
    while outcomes := review_tier(registry, registry.customers[ALICE]):
        said += evolved(registry, outcomes)
    return said


def changed(tier: str, on: float, *, pinned: bool = False) -> TierChanged:
    return TierChanged(occurred_at=day(on), customer_id=ALICE, tier=tier, pinned=pinned)


def test_a_customer_rises_when_the_points_of_a_year_reach_a_threshold() -> None:
    registry = given()
    assert settle(registry, 499, on=0) == []
    assert settle(registry, 1, on=10) == [changed("silver", 10)]
    assert settle(registry, 1499, on=20) == []
    assert settle(registry, 1, on=30) == [changed("gold", 30)]


def test_a_tier_falls_step_by_step_at_the_business_times_at_which_points_grow_old() -> None:
    registry = given()
    settle(registry, 1600, on=0)
    settle(registry, 500, on=100)
    assert registry.customers[ALICE].tier == "gold"
    assert review(registry, 364.9) == []
    assert review(registry, 365.1) == [changed("silver", 365)]
    assert review(registry, 3650) == [changed("base", 465)]
    assert registry.customers[ALICE].review_at is None
    assert review(registry, 36500) == []


def test_a_clock_that_jumps_tells_every_fall_at_its_own_time() -> None:
    registry = given()
    settle(registry, 1600, on=0)
    settle(registry, 500, on=100)
    assert review(registry, 3650) == [changed("silver", 365), changed("base", 465)]


def test_points_bought_meanwhile_keep_the_tier() -> None:
    registry = given()
    settle(registry, 600, on=0)
    settle(registry, 600, on=300)
    assert registry.customers[ALICE].review_at == day(300) + WINDOW
    assert review(registry, 400) == []
    assert review(registry, 666) == [changed("base", 665)]


def test_a_settlement_after_a_long_pause_finds_the_old_points_gone() -> None:
    registry = given()
    settle(registry, 600, on=0)
    assert settle(registry, 100, on=800) == []
    assert review(registry, 800) == [changed("base", 365)]


def test_what_another_partition_shows_of_the_time_lowers_no_tier() -> None:
    registry = given()
    settle(registry, 600, on=0)
    registry.advance(day(400))  # as another customer's settlement says
    assert review_tier(registry, registry.customers[ALICE]) == []
    assert settle(registry, 10, on=366) == []  # her own, read before that of day 364
    assert settle(registry, 600, on=364) == []
    assert review(registry, 400) == []
    assert registry.customers[ALICE].review_at == day(364) + WINDOW


def test_settlements_read_in_the_wrong_order_make_no_tier_that_never_was() -> None:
    registry = given()
    assert settle(registry, 400, on=366) == []
    assert settle(registry, 200, on=0) == []


def test_a_settlement_of_the_future_counts_when_it_was_recorded() -> None:
    registry = given()
    settle(registry, 2000, on=0)
    order = uuid5(ALICE, "much later")
    registry.orders[order] = Identification("identified", 1, ALICE)
    event = OrderSettled(occurred_at=day(40_000), order_id=order, customer_id=ALICE, amount=Decimal(10), currency="EUR")
    outcomes = decide(registry, dated(event, day(3)))
    assert [one.occurred_at for one in outcomes if isinstance(one, Entry)] == [day(3)]
    assert evolved(registry, outcomes) == []
    assert dated(event, day(50_000)) == event


def test_a_late_settlement_counts_in_its_own_year() -> None:
    registry = given()
    read(registry, 400)
    assert settle(registry, 600, on=10) == []  # more than a year before the clock
    assert settle(registry, 600, on=50) == [TierChanged(
        occurred_at=registry.clock or START, customer_id=ALICE, tier="silver")]  # fmt: skip
    assert registry.customers[ALICE].review_at == day(50) + WINDOW


def test_goodwill_makes_no_tier() -> None:
    registry = given()
    entry = decisions.give(registry.customers[ALICE], 5000, entry_id=UUID(int=1), occurred_at=START)
    assert entry is not None
    registry.evolve(entry)
    assert settle(registry, 1, on=1) == []


def test_a_pinned_tier_is_kept_until_it_is_freed() -> None:
    registry = given()
    settle(registry, 600, on=0)
    alice = registry.customers[ALICE]
    assert evolved(registry, decisions.pin_tier(alice, "gold", day(5))) == [changed("gold", 5, pinned=True)]
    assert decisions.pin_tier(alice, "gold", day(6)) == []
    assert alice.review_at is None
    assert settle(registry, 100, on=10) == []
    assert review(registry, 500) == []
    settle(registry, 1, on=350)
    assert evolved(registry, decisions.unpin_tier(registry, alice, day(360))) == [changed("base", 360)]
    assert decisions.unpin_tier(registry, alice, day(361)) == []


def test_pinning_the_tier_that_one_has_is_said_too() -> None:
    registry = given()
    assert decisions.pin_tier(registry.customers[ALICE], "base", day(0))[0] == changed("base", 0, pinned=True)


def test_a_freed_tier_is_that_of_the_points() -> None:
    registry = given()
    settle(registry, 600, on=0)
    alice = registry.customers[ALICE]
    evolved(registry, decisions.pin_tier(alice, "gold", day(5)))
    outcomes = decisions.unpin_tier(registry, alice, day(9))
    assert outcomes == [changed("silver", 9), ReviewSet(customer_id=ALICE, at=day(365))]


def test_a_guest_has_no_tier_to_rise_to() -> None:
    assert settle(given(guest=True), 5000, on=0) == []


@pytest.mark.parametrize(
    ("points", "expected"),
    [(0, ("silver", 500)), (499, ("silver", 500)), (500, ("gold", 2000)), (2000, None)],
)
def test_the_next_tier_is_the_lowest_not_reached(points: int, expected: tuple[str, int] | None) -> None:
    assert tiers.next_tier(points, THRESHOLDS) == expected


def test_what_is_exactly_a_year_old_is_too_old() -> None:
    assert standing([(day(0), 500)], day(365), THRESHOLDS) == Standing("base", 0, None)
    just_before = day(365) - timedelta(microseconds=1)
    assert standing([(day(0), 500)], just_before, THRESHOLDS) == Standing("silver", 500, day(365))


@given_any(
    st.lists(st.tuples(st.integers(0, 800).map(day), st.integers(1, 900)), max_size=20), st.integers(0, 800).map(day)
)
def test_a_tier_holds_until_its_review_and_falls_at_it(earned: list[tiers.Earned], at: datetime) -> None:
    now = standing(earned, at, THRESHOLDS)
    if now.review_at is None:
        assert now.tier == "base"
        return
    assert now.review_at > at
    rank = ["base", *THRESHOLDS]
    before = standing(earned, now.review_at - timedelta(microseconds=1), THRESHOLDS)
    after = standing(earned, now.review_at, THRESHOLDS)
    assert before.tier == now.tier
    assert rank.index(after.tier) < rank.index(now.tier)


def test_the_business_clock_counts_hours_and_never_goes_back() -> None:
    hour = datetime(2010, 1, 1, 12, tzinfo=UTC)
    assert tiers.later(None, START) == hour
    assert tiers.later(hour, hour + timedelta(minutes=59)) == hour
    assert tiers.later(hour, hour - timedelta(days=3)) == hour
    assert tiers.later(hour, hour + timedelta(minutes=60)) == hour + timedelta(hours=1)
