"""Points: taken with an order, given back with it, earned when it is settled; the balance is the sum of its entries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from services.customer import decisions, points
from services.customer.decisions import Claim, Said, decide
from services.customer.points import Entry, Kind
from services.customer.registry import Customer, Identification, OrderEnded, Outcome, Programme, Registry
from shared.events.customer import BuyerIdentified, BuyerRefused, IdentificationEvent, PointsReleased, PointsSettled
from shared.events.order import (
    CancelledLine,
    OrderCancelled,
    OrderConfirmed,
    OrderEvent,
    OrderExpired,
    OrderLinesCancelled,
    OrderRejected,
    OrderSettled,
)

NOON = datetime(2010, 12, 1, 12, tzinfo=UTC)
ALICE, BOB, GWEN = UUID(int=0xA11CE), UUID(int=0xB0B), UUID(int=0x6E37)
LAMPS, CUPS = UUID(int=0x1A3B5), UUID(int=0xC0B5)  # orders
ENDS: list[OrderEvent] = [
    OrderRejected(occurred_at=NOON, order_id=LAMPS, reason="stock"),
    OrderCancelled(occurred_at=NOON, order_id=LAMPS),
    OrderExpired(occurred_at=NOON, order_id=LAMPS),
]


def given(*customers: Customer, **more: Any) -> Registry:
    return Registry(customers={one.customer_id: one for one in customers}, **more)


def claim(number: int, order: UUID = LAMPS, customer: UUID | None = ALICE) -> Claim:
    return Claim(order_id=order, channel="shop", occurred_at=NOON, customer_id=customer, points=number)


def settled(amount: str = "0", currency: str = "EUR", order: UUID = LAMPS, customer: UUID = ALICE) -> OrderSettled:
    return OrderSettled(
        occurred_at=NOON, order_id=order, customer_id=customer, amount=Decimal(amount), currency=currency
    )


def part_cancelled(number: int, part: int = 1, order: UUID = LAMPS) -> OrderLinesCancelled:
    line = CancelledLine(line=part, sku="RED-LAMP", quantity=1, amount=Decimal(5))
    return OrderLinesCancelled(
        occurred_at=NOON, order_id=order, lines=(line,), amount=Decimal(5), currency="EUR", points=number
    )


def when(registry: Registry, said: Said, *, again: bool = True) -> list[Outcome]:
    """What is answered; with ``again`` the same said twice changes nothing (the inbox sees to the rest)."""
    outcomes = decide(registry, said)
    for outcome in outcomes:
        registry.evolve(outcome)
    if again:
        assert decide(registry, said) == []
    return outcomes


def entries(registry: Registry) -> list[tuple[Kind, int]]:
    return [(one.kind, one.points) for one in registry.entries]


def purse(registry: Registry, customer: UUID = ALICE) -> tuple[int, int]:
    return registry.customers[customer].balance, registry.customers[customer].held


def answers(outcomes: list[Outcome]) -> list[IdentificationEvent]:
    kinds = (BuyerIdentified, BuyerRefused, PointsReleased, PointsSettled)
    return [one for one in outcomes if isinstance(one, kinds)]


def test_points_leave_the_balance_when_an_order_takes_them() -> None:
    registry = given(Customer(ALICE, balance=500))
    (identified,) = answers(when(registry, claim(300)))
    assert isinstance(identified, BuyerIdentified)
    assert identified.points_held == 300
    assert (purse(registry), entries(registry)) == ((200, 300), [("redeemed", -300)])
    (entry,) = registry.entries
    assert (entry.order_id, entry.customer_id, entry.occurred_at) == (LAMPS, ALICE, NOON)


def test_points_beyond_the_balance_refuse_the_order() -> None:
    registry = given(Customer(ALICE, balance=299, held=200))
    (refused,) = answers(when(registry, claim(300)))
    assert isinstance(refused, BuyerRefused)
    assert (refused.reason, refused.detail) == ("points", "300 points are more than can be redeemed")
    assert (purse(registry), entries(registry)) == ((299, 200), [])


@pytest.mark.parametrize("end", ENDS, ids=lambda end: type(end).__name__)
def test_an_order_that_ends_gives_its_points_back(end: OrderEvent) -> None:
    registry = given(Customer(ALICE, balance=500))
    when(registry, claim(300))
    released, _, over = when(registry, end)
    assert released == PointsReleased(occurred_at=NOON, order_id=LAMPS, customer_id=ALICE, points=300)
    assert over == OrderEnded(order_id=LAMPS)
    assert (purse(registry), entries(registry)) == ((500, 0), [("redeemed", -300), ("released", 300)])
    assert registry.orders[LAMPS] == Identification("ended", 2, ALICE, 0)


def test_a_confirmed_order_keeps_its_points() -> None:
    registry = given(Customer(ALICE, balance=500))
    when(registry, claim(300))
    confirmed = OrderConfirmed(
        occurred_at=NOON, order_id=LAMPS, customer_id=ALICE, recipient_id=UUID(int=1), total=Decimal("9.99"),
        currency="EUR",
    )  # fmt: skip
    assert when(registry, confirmed) == []
    assert purse(registry) == (200, 300)


def test_points_of_a_customer_merged_meanwhile_go_back_to_the_one_who_has_them_now() -> None:
    registry = given(Customer(BOB, balance=500))
    when(registry, claim(300, customer=BOB))
    registry.customers = {ALICE: Customer(ALICE, balance=200, held=300)}
    registry.aliases[BOB] = ALICE
    released, *_ = when(registry, ENDS[1])
    assert released == PointsReleased(occurred_at=NOON, order_id=LAMPS, customer_id=ALICE, points=300)
    assert purse(registry) == (500, 0)


def test_a_cancelled_part_gives_its_share_back_and_the_end_the_rest() -> None:
    registry = given(Customer(ALICE, balance=500))
    when(registry, claim(300))
    (part,) = answers(when(registry, part_cancelled(100), again=False))
    assert isinstance(part, PointsReleased)
    assert (part.points, registry.orders[LAMPS].state, purse(registry)) == (100, "identified", (300, 200))
    (rest,) = answers(when(registry, ENDS[1]))
    assert isinstance(rest, PointsReleased)
    assert (rest.points, purse(registry), registry.orders[LAMPS].version) == (200, (500, 0), 3)


def test_parts_never_give_back_more_than_the_order_has() -> None:
    registry = given(Customer(ALICE, balance=300))
    when(registry, claim(300))
    when(registry, part_cancelled(200), again=False)
    when(registry, part_cancelled(200, part=2))
    assert entries(registry) == [("redeemed", -300), ("part_released", 200), ("part_released", 100)]
    assert len({one.entry_id for one in registry.entries}) == 3
    assert answers(when(registry, settled("1.00"))) == [
        PointsSettled(occurred_at=NOON, order_id=LAMPS, customer_id=ALICE, earned=1, redeemed=0)
    ]


def test_a_part_of_an_order_that_is_over_or_unknown_gives_nothing_back() -> None:
    registry = given(Customer(ALICE, balance=300))
    assert when(registry, part_cancelled(10)) == []
    when(registry, claim(300))
    when(registry, settled("10"))
    assert when(registry, part_cancelled(10)) == []


def test_a_settled_order_has_spent_its_points_and_earns_new_ones() -> None:
    registry = given(Customer(ALICE, balance=500))
    when(registry, claim(300))
    assert answers(when(registry, settled("47.96"))) == [
        PointsSettled(occurred_at=NOON, order_id=LAMPS, customer_id=ALICE, earned=47, redeemed=300)
    ]
    assert (purse(registry), entries(registry)) == ((247, 0), [("redeemed", -300), ("earned", 47)])
    assert registry.orders[LAMPS] == Identification("settled", 2, ALICE, 0)
    for late in ENDS:
        assert when(registry, late) == []


def test_a_guest_earns_nothing_and_the_order_is_answered() -> None:
    registry = given(Customer(GWEN, guest=True), orders={LAMPS: Identification("identified", 1, GWEN)})
    assert when(registry, settled("99.00", customer=GWEN)) == [
        PointsSettled(occurred_at=NOON, order_id=LAMPS, customer_id=GWEN, earned=0)
    ]
    assert (purse(registry, GWEN), registry.entries) == ((0, 0), [])


def test_an_order_that_brought_nothing_is_answered_without_an_entry() -> None:
    registry = given(Customer(ALICE))
    when(registry, claim(0))
    assert answers(when(registry, settled("0.99"))) == [
        PointsSettled(occurred_at=NOON, order_id=LAMPS, customer_id=ALICE, earned=0)
    ]
    assert registry.entries == []


@pytest.mark.parametrize("before", [None, *ENDS], ids=["never seen", "rejected", "cancelled", "expired"])
def test_a_settled_order_that_is_nobodys_is_answered_with_nothing(before: OrderEvent | None) -> None:
    registry = given()
    if before is not None:
        when(registry, before)
    assert when(registry, settled("99")) == [
        PointsSettled(occurred_at=NOON, order_id=LAMPS, customer_id=ALICE, earned=0)
    ]


@pytest.mark.parametrize(
    ("amount", "currency", "number"),
    [("47.99", "EUR", 47), ("0.99", "EUR", 0), ("4799", "JPY", 47), ("12.999", "KWD", 12), ("-3", "EUR", 0),
     ("100", "GBP", 150), ("100", "SEK", 0)],
)  # fmt: skip
def test_a_major_unit_earns_what_its_currency_says(amount: str, currency: str, number: int) -> None:
    rates = {"GBP": Decimal("1.5"), "SEK": Decimal(0)}
    assert points.earned(Decimal(amount), currency, rates) == number
    registry = given(Customer(ALICE), programme=Programme(rates))
    when(registry, claim(0))
    when(registry, settled(amount, currency))
    assert purse(registry) == (number, 0)


def test_goodwill_is_never_taken_from_what_is_not_there() -> None:
    registry = given(Customer(ALICE, balance=500))
    when(registry, claim(300))
    alice = registry.customers[ALICE]
    assert decisions.give(alice, -201, entry_id=UUID(int=1), occurred_at=NOON) is None
    entry = decisions.give(alice, -200, entry_id=UUID(int=1), occurred_at=NOON)
    assert entry is not None
    registry.evolve(entry)
    assert purse(registry) == (0, 300)


ORDERS = [uuid5(ALICE, str(number)) for number in range(3)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["claim", "cancel", "part", "settle", "goodwill"]),
        st.sampled_from(ORDERS),
        st.integers(min_value=-50, max_value=400),
        st.booleans(),
    ),
    max_size=30,
)


def step(registry: Registry, kind: str, order: UUID, number: int, place: int) -> list[Outcome]:
    match kind:
        case "claim":
            return decide(registry, claim(number, order))
        case "cancel":
            return decide(registry, OrderCancelled(occurred_at=NOON, order_id=order))
        case "part":
            return decide(registry, part_cancelled(max(number, 0), place, order))
        case "settle":
            at = NOON + timedelta(days=number)
            return decide(registry, settled(str(number), order=order).model_copy(update={"occurred_at": at}))
        case _:
            id_ = uuid5(ALICE, f"goodwill {place}")
            entry = decisions.give(registry.customers[ALICE], number, entry_id=id_, occurred_at=NOON)
            return [entry] if entry is not None and number else []


@given_any(STEPS)
def test_whatever_happens_the_balance_is_the_sum_of_its_entries_and_never_negative(
    steps: list[tuple[str, UUID, int, bool]],
) -> None:
    registry = given(Customer(ALICE))
    for place, (kind, order, number, twice) in enumerate(steps):
        for _ in range(1 + (twice and kind != "goodwill")):
            for outcome in step(registry, kind, order, number, place):
                registry.evolve(outcome)
            balance, held = purse(registry)
            assert balance >= 0
            assert balance == sum(one.points for one in registry.entries)
            assert held == sum(one.points_held for one in registry.orders.values())
            assert all(one.points_held >= 0 for one in registry.orders.values())
    assert len({one.entry_id for one in registry.entries}) == len(registry.entries)
    for order in ORDERS:
        conserved(registry, order)


def conserved(registry: Registry, order: UUID) -> None:
    """What an order took it has given back, still has, or has spent; and it ends or earns once."""
    own: list[Entry] = [one for one in registry.entries if one.order_id == order]
    kinds = [one.kind for one in own]
    assert all(kinds.count(kind) <= 1 for kind in ("redeemed", "released", "earned"))
    moved = -sum(one.points for one in own if one.kind != "earned")
    known = registry.orders.get(order)
    state = known.state if known else "unseen"
    assert moved >= 0
    if state != "settled":  # then what is left is spent
        assert moved == (known.points_held if known else 0)
    assert "earned" not in kinds or state == "settled"
