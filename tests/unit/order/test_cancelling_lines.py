"""Partial cancellations give back their share, and all of them together exactly what was paid."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from services.order.cancellations import Refusal, cancel_lines
from services.order.state import Order
from shared.events.order import OrderEvent, OrderLinesCancelled, RefundRequested
from tests.support.money import (
    cancelled,
    captured,
    confirmed,
    evolved,
    heard,
    names,
    new_order,
    owed,
    paying,
    reported,
)
from tests.support.orders import NOW, held, identified, priced, priced_line


def taken_off(order: Order, **units: int) -> list[OrderEvent]:
    """Units cancelled by line: l1=1."""
    events = cancel_lines(order, {int(line[1:]): n for line, n in units.items()}, "requested", NOW)
    assert not isinstance(events, Refusal)
    return evolved(order, events)


def test_one_cup_of_two_gives_back_half_its_line():
    order = confirmed()
    lines, refund = taken_off(order, l2=1)
    assert isinstance(lines, OrderLinesCancelled)
    assert isinstance(refund, RefundRequested)
    assert (lines.amount, refund.amount) == (Decimal("5.00"), Decimal("5.00"))
    assert [(line.sku, line.quantity, line.amount) for line in lines.lines] == [("BLUE-CUP", 1, Decimal("5.00"))]
    assert (order.state, order.cancelled_amount, owed(order)) == ("confirmed", Decimal("5.00"), Decimal("35.00"))


def test_redeemed_points_are_taken_off_in_proportion():
    order = confirmed("20.00")  # 40.00, half of it paid with points
    _, refund = taken_off(order, l2=1)
    assert isinstance(refund, RefundRequested)
    assert refund.amount == Decimal("2.50")


def test_cancelling_the_last_units_cancels_the_order():
    order = confirmed()
    taken_off(order, l1=1)
    assert names(taken_off(order, l2=2)) == ["OrderCancelled", "RefundRequested"]
    assert (order.state, order.reason, owed(order)) == ("cancelled", "all_lines_cancelled", Decimal(0))


def test_the_rest_of_a_partly_cancelled_order_is_given_back_with_the_order():
    order = confirmed()
    taken_off(order, l1=1)
    _, refund = cancelled(order)
    assert isinstance(refund, RefundRequested)
    assert refund.amount == Decimal("10.00")


def test_more_than_is_left_of_a_line_is_refused():
    order = confirmed()
    taken_off(order, l2=1)
    assert cancel_lines(order, {2: 2}, "requested", NOW) == Refusal("line 2 has 1 left to cancel", "lines")
    assert cancel_lines(order, {3: 1}, "requested", NOW) == Refusal("line 3 has 0 left to cancel", "lines")


def test_lines_can_be_cancelled_of_a_confirmed_order_only():
    for order in (new_order(), paying()):
        assert isinstance(cancel_lines(order, {1: 1}, "requested", NOW), Refusal)


cents = st.integers(0, 10_000).map(lambda n: Decimal(n) / 100)
asked = st.lists(st.tuples(st.integers(1, 12), cents), min_size=1, max_size=5)


@given(asked, st.integers(0, 100), st.lists(st.tuples(st.integers(0, 4), st.integers(1, 12)), max_size=12))
def test_all_partial_cancellations_and_the_rest_give_back_the_total_to_the_cent(
    asked: list[tuple[int, Decimal]], points_percent: int, cancellations: list[tuple[int, int]]
):
    lines = [priced_line(n, f"LAMP-{n}", quantity, str(total)) for n, (quantity, total) in enumerate(asked, 1)]
    whole = sum((line.total for line in lines), Decimal(0))
    total = (whole * (100 - points_percent) / 100).quantize(Decimal("0.01"))
    order = new_order()
    heard(order, identified(), held(), priced(str(total), lines))
    if total:
        reported(order, captured(str(total)))
    given_back: list[Decimal] = []
    for index, units in cancellations:
        events = cancel_lines(order, {index % len(lines) + 1: units}, "requested", NOW)
        if not isinstance(events, Refusal):
            given_back += [event.amount for event in evolved(order, events) if isinstance(event, RefundRequested)]
            assert owed(order) >= 0
    if order.state == "confirmed":
        given_back += [event.amount for event in cancelled(order) if isinstance(event, RefundRequested)]
    assert all(amount > 0 for amount in given_back)
    assert sum(given_back, Decimal(0)) == total
    assert owed(order) == 0
