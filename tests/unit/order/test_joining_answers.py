"""Given a placed order, when its answers come, in whatever order and twice, then it goes on once or ends once."""

from __future__ import annotations

from decimal import Decimal
from itertools import permutations
from uuid import uuid5

import pytest

from services.order.decisions import decide
from services.order.state import Answer
from shared.events.order import OrderConfirmed, OrderRejected, PaymentCaptured, PaymentRequested
from tests.support.money import cancelled, expired, heard, names, new_order
from tests.support.orders import (
    ANNA,
    HOME,
    NOW,
    buyer_refused,
    held,
    identified,
    order_id,
    price_refused,
    priced,
    stock_refused,
)

PAYMENT = uuid5(order_id(), "payment")
YES = (identified(), held(), priced())


def rejected(reason: str, detail: str = "") -> OrderRejected:
    return OrderRejected(occurred_at=NOW, order_id=order_id(), reason=reason, detail=detail)


def orders_of(*answers: Answer) -> list[tuple[Answer, ...]]:
    return list(permutations(answers))


def confirmation(total: str) -> OrderConfirmed:
    return OrderConfirmed(
        occurred_at=NOW, order_id=order_id(), customer_id=ANNA, recipient_id=HOME, total=Decimal(total), currency="EUR"
    )


@pytest.mark.parametrize("answers", orders_of(*YES))
def test_whichever_answer_comes_last_asks_for_the_money(answers: tuple[Answer, ...]):
    order = new_order()
    requested = PaymentRequested(
        occurred_at=NOW, order_id=order_id(), payment_id=PAYMENT, amount=Decimal("40.00"), currency="EUR"
    )
    assert heard(order, *answers) == [requested]
    assert (order.state, order.version, order.missing) == ("paying", 2, ("payment",))


@pytest.mark.parametrize("answers", [two for pair in permutations(YES, 2) for two in [pair]])
def test_an_order_waits_for_the_third_answer(answers: tuple[Answer, ...]):
    order = new_order()
    assert heard(order, *answers) == []
    assert (order.state, len(order.missing)) == ("placed", 1)


@pytest.mark.parametrize(
    ("refusal", "reason", "detail"),
    [
        (buyer_refused(), "points", "100 asked, 20 there"),
        (stock_refused(), "stock", "RED-LAMP: 1 of 2"),
        (price_refused(), "coupon_used_up", "SPRING"),
    ],
)
def test_the_first_no_ends_the_order_once(refusal: Answer, reason: str, detail: str):
    others = [yes for yes in YES if not isinstance(refusal, type(yes))]
    for answers in orders_of(refusal, *others[:2]):
        order = new_order()
        assert heard(order, *answers) == [rejected(reason, detail)]
        assert order.state == "rejected"


def test_of_three_refusals_the_first_is_the_reason():
    for answers in orders_of(buyer_refused(), stock_refused(), price_refused()):
        order = new_order()
        (end,) = heard(order, *answers)
        assert [end] == decide(new_order(), answers[0])


@pytest.mark.parametrize("answers", orders_of(*YES))
def test_a_price_other_than_the_buyer_was_shown_rejects_the_order(answers: tuple[Answer, ...]):
    order = new_order(expected_total="39.99")
    expected = rejected("price_differs", "the buyer was shown 39.99 EUR, the price is 40.00")
    assert heard(order, *answers) == [expected]
    assert order.payment is None


def test_the_price_that_the_buyer_was_shown_is_compared_by_value():
    assert names(heard(new_order(expected_total="40"), *YES)) == ["PaymentRequested"]


def test_an_order_that_costs_nothing_is_confirmed_without_a_payment():
    order = new_order()
    assert heard(order, identified(), held(), priced("0.00")) == [confirmation("0.00")]
    assert order.payment is None
    assert names(cancelled(order)) == ["OrderCancelled"]


@pytest.mark.parametrize("answers", orders_of(*YES))
def test_a_prepaid_order_is_captured_by_its_channel_and_confirmed(answers: tuple[Answer, ...]):
    order = new_order(prepaid=True)
    captured = PaymentCaptured(
        occurred_at=NOW, order_id=order_id(), payment_id=PAYMENT, amount=Decimal("40.00"), currency="EUR",
        provider="shop",
    )  # fmt: skip
    assert heard(order, *answers) == [captured, confirmation("40.00")]
    assert order.state == "confirmed"


@pytest.mark.parametrize("end", [cancelled, expired])
def test_answers_that_come_after_the_end_change_nothing(end: object):
    order = new_order()
    ended = cancelled(order) if end is cancelled else expired(order)
    assert len(ended) == 1
    assert heard(order, *YES, stock_refused()) == []
    assert order.version == 2
