"""What others should hold for an order, and in what they differ."""

from __future__ import annotations

from decimal import Decimal

import pytest

from services.order.payments.decisions import PaymentReport
from services.order.reconciliation.decisions import Due, Held, Money, differences, due, restated
from services.order.reconciliation.payments import Ours, compare
from services.order.state import Order, Parcel
from shared.events.order import HeldUnits
from tests.support.orders import LAMP_AND_CUPS, NOW, order_id

BALANCED = Money(Decimal(40), Decimal(40))
LAMP, CUPS = ("RED-LAMP", "BER"), ("BLUE-CUP", "GRZ")


def sold(lamp: str = "booked", cups: str = "planned", *, issued: bool = True, **more: object) -> Order:
    """A lamp goes from Berlin, two cups from Graz."""
    parcels = [Parcel(1, "BER", {"RED-LAMP": 1}, lamp, issued=issued), Parcel(2, "GRZ", {"BLUE-CUP": 2}, cups)]
    order = Order(order_id(), "shop", "EUR", state="confirmed", total=Decimal(40), parcels=parcels)
    for name, value in more.items():
        setattr(order, name, value)
    return order


def kinds(order: Order, held: Held, coupon: str | None = None, money: Money = BALANCED) -> list[tuple[str, bool]]:
    return [(one.kind, one.mendable) for one in differences(order, coupon, held, money)]


@pytest.mark.parametrize("state", ["placed", "paying"])
def test_of_an_open_order_nothing_is_expected(state: str):
    order = Order(order_id(), "shop", "EUR", state=state, points=5)
    assert due(order) is None
    assert kinds(order, Held({LAMP: 1}, 5, "TEN", quote=True)) == []


@pytest.mark.parametrize("state", ["rejected", "cancelled", "expired"])
def test_an_ended_order_holds_nothing(state: str):
    order = Order(order_id(), "shop", "EUR", state=state, points=5)
    assert due(order) == Due({}, 0, coupon=False)
    held = Held({LAMP: 1}, 5, "TEN", quote=True)
    assert kinds(order, held, "TEN") == [("stock", True), ("points", True), ("coupon", True), ("quote", True)]
    assert kinds(order, Held(), "TEN") == []
    said = restated(order, NOW)
    assert (said.state, said.goods, said.points, said.keeps_coupon) == (state, (), 0, False)


def test_a_confirmed_order_holds_what_has_not_left_where_its_parcels_are():
    assert due(sold()) == Due({LAMP: 1, CUPS: 2}, 0, coupon=True)
    assert due(sold("recalling", "booking")) == Due({LAMP: 1, CUPS: 2}, 0, coupon=True)
    assert due(sold("shipped")) == Due({CUPS: 2}, 0, coupon=True)
    assert due(sold("lost", "dropped")) == Due({}, 0, coupon=True)
    assert kinds(sold(), Held({LAMP: 1, CUPS: 2}, 0, "TEN"), "TEN") == []
    assert kinds(sold(), Held({LAMP: 1, CUPS: 1})) == [("stock", True)]
    assert kinds(sold(), Held({LAMP: 1, ("BLUE-CUP", "BER"): 2})) == [("stock", True)], "in another warehouse"
    assert restated(sold(), NOW).goods == (
        HeldUnits(sku="BLUE-CUP", warehouse="GRZ", quantity=2), HeldUnits(sku="RED-LAMP", warehouse="BER", quantity=1),
    )  # fmt: skip


def test_goods_that_left_are_no_surplus_until_inventory_has_told_what_left():
    order = sold("shipped", issued=False)
    assert kinds(order, Held({LAMP: 1, CUPS: 2})) == []
    assert restated(order, NOW).goods is None


def test_a_confirmed_order_without_parcels_is_of_an_old_release_and_keeps_what_it_has():
    order = Order(order_id(), "shop", "EUR", state="confirmed", points=5)
    assert kinds(order, Held({LAMP: 1}, 5)) == []
    assert restated(order, NOW).goods is None
    assert restated(order, NOW).points is None


def test_points_are_those_of_what_is_left():
    order = sold(points=100, priced_lines=LAMP_AND_CUPS, cancelled_lines={2: 2})
    assert due(order) == Due({LAMP: 1, CUPS: 2}, 75, coupon=True)
    goods = {LAMP: 1, CUPS: 2}
    assert kinds(order, Held(goods, 75)) == []
    assert kinds(order, Held(goods, 100)) == [("points", True)]
    assert kinds(order, Held(goods, 50)) == [("points", False)], "they may be spent by now"


def test_settled_points_are_spent_and_never_given_back():
    waits = sold("delivered", "dropped", settled=True, points=100)
    assert kinds(waits, Held({}, 100)) == []
    closed = sold("delivered", "dropped", settled=True, points_settled=True, points=100, state="closed")
    assert kinds(closed, Held({}, 0)) == []
    assert kinds(closed, Held({}, 100)) == [("points", False)]
    assert restated(closed, NOW).points is None


def test_a_coupon_that_a_sold_order_has_lost_is_reported():
    goods = {LAMP: 1, CUPS: 2}
    assert kinds(sold(), Held(goods), "TEN") == [("coupon", False)]
    assert kinds(sold(), Held(goods, quote=True)) == [("quote", True)]


def test_books_that_differ_from_the_payment_are_reported():
    assert kinds(sold(), Held({LAMP: 1, CUPS: 2}), money=Money(Decimal(40), Decimal("39.99"))) == [("books", False)]


def ours(captured: str, refunded: str = "0", *, refund_open: bool = False) -> Ours:
    return Ours(order_id(1), order_id(2), Decimal(captured), Decimal(refunded), 5, True, refund_open)


def theirs(status: str = "captured", amount: str = "40.00", refunded: str = "0.00") -> PaymentReport:
    return PaymentReport(status, Decimal(amount), refunded=Decimal(refunded))


@pytest.mark.parametrize(
    ("mine", "there", "kind", "mendable"),
    [
        (ours("40"), theirs(), None, None),
        (ours("40", "15"), theirs(refunded="15.00"), None, None),
        (ours("0"), theirs("declined"), None, None),
        (ours("0"), None, None, None),
        (ours("0"), theirs(), "payment", True),
        (ours("40", refund_open=True), theirs(refunded="40.00"), "payment", True),
        (ours("40"), theirs(refunded="40.00"), "payment", False),
        (ours("40", "40"), theirs(), "payment", False),
        (ours("40"), theirs("declined"), "payment", False),
        (ours("40"), None, "payment_missing", False),
        (None, theirs(), "payment_unknown", False),
        (None, None, None, None),
    ],
)
def test_a_payment_is_as_the_provider_has_it(
    mine: Ours | None, there: PaymentReport | None, kind: str | None, mendable: bool | None
):
    found = compare(mine, there)
    assert (found and found.kind, found and found.mendable) == (kind, mendable)
