"""Given an order that is to be paid, when the provider reports, twice and in any order, then money and goods agree."""

from __future__ import annotations

from decimal import Decimal
from itertools import permutations

import pytest

from services.order.cancellations import Refusal, cancel
from services.order.payments.decisions import PaymentReport, refunded
from shared.events.order import OrderExpired, OrderRejected, PaymentActionRequired, PaymentCaptured, RefundRequested
from tests.support.money import (
    cancelled,
    captured,
    confirmed,
    expired,
    heard,
    names,
    new_order,
    owed,
    paid_out,
    paying,
    report,
    reported,
)
from tests.support.orders import NOW, held, identified, order_id, priced

NONE = Decimal(0)


def test_a_captured_payment_confirms_the_order_once():
    order = paying()
    assert names(reported(order, captured(), captured())) == ["PaymentCaptured", "OrderConfirmed"]
    assert owed(order) == Decimal("40.00")


def test_a_declined_payment_rejects_the_order_with_the_providers_reason():
    order = paying()
    declined, end = reported(order, report("declined", "insufficient_funds"))
    assert names([declined]) == ["PaymentDeclined"]
    assert end == OrderRejected(
        occurred_at=NOW, order_id=order_id(), reason="payment_declined", detail="insufficient_funds"
    )


def test_a_pending_payment_says_nothing_and_goes_on():
    order = paying()
    assert reported(order, report("pending")) == []
    assert order.payment is not None
    assert order.payment.state == "pending"
    assert names(reported(order, captured())) == ["PaymentCaptured", "OrderConfirmed"]


def test_3d_secure_is_asked_for_once_and_then_goes_on():
    order = paying()
    (action,) = reported(order, report("requires_action"), report("pending"))
    assert isinstance(action, PaymentActionRequired)
    assert action.redirect_url == "https://bank.example/3ds"
    assert names(reported(order, captured())) == ["PaymentCaptured", "OrderConfirmed"]


@pytest.mark.parametrize("reports", list(permutations([report("pending"), report("requires_action"), captured()])))
def test_reordered_reports_capture_once(reports: tuple[PaymentReport, ...]):
    order = paying()
    said = names(reported(order, *reports))
    assert (said.count("PaymentCaptured"), said.count("OrderConfirmed")) == (1, 1)
    assert owed(order) == Decimal("40.00")


def test_a_capture_that_overtook_a_decline_stays():
    order = confirmed()
    assert reported(order, report("declined"), report("cancelled"), report("pending")) == []
    assert (order.state, owed(order)) == ("confirmed", Decimal("40.00"))


def test_a_capture_after_a_decline_is_refunded():
    order = paying()
    reported(order, report("declined"))
    assert names(reported(order, captured())) == ["PaymentCaptured", "RefundRequested"]
    assert (order.state, owed(order)) == ("rejected", NONE)


@pytest.mark.parametrize("end", ["cancelled", "expired"])
def test_a_capture_after_the_end_is_refunded_exactly_once(end: str):
    order = paying()
    if end == "cancelled":
        cancelled(order)
    else:
        expired(order)
        reported(order, report("cancelled"))
    assert order.state == end
    late, refund = reported(order, captured(), captured())
    assert isinstance(late, PaymentCaptured)
    assert late.late
    assert isinstance(refund, RefundRequested)
    assert (refund.amount, refund.reason) == (Decimal("40.00"), "late_capture")
    assert names(paid_out(order)) == ["PaymentRefunded"]
    assert order.payment is not None
    assert order.payment.captured == order.payment.refunded == Decimal("40.00")


def test_a_capture_of_another_amount_is_given_back_and_ends_the_order():
    order = paying()
    said = reported(order, captured("39.00"))
    assert names(said) == ["PaymentCaptured", "RefundRequested", "OrderRejected"]
    assert (order.reason, owed(order)) == ("payment_amount_differs", NONE)


def test_a_refund_told_twice_is_one_and_an_unknown_one_is_none():
    order = confirmed()
    cancelled(order)
    assert names(paid_out(order)) == ["PaymentRefunded"]
    assert refunded(order, order_id(99), NOW) == []
    assert refunded(new_order(), order_id(99), NOW) == []


def test_cancelling_a_placed_order_ends_it_without_money():
    assert names(cancelled(new_order())) == ["OrderCancelled"]


def test_cancelling_while_paying_closes_the_payment():
    order = paying()
    assert names(cancelled(order)) == ["OrderCancelled"]
    assert order.payment is not None
    assert order.payment.closing
    assert names(reported(order, report("cancelled"))) == ["PaymentDeclined"]
    assert (order.state, owed(order)) == ("cancelled", NONE)


def test_cancelling_a_confirmed_order_gives_everything_back():
    order = confirmed()
    assert names(cancelled(order)) == ["OrderCancelled", "RefundRequested"]
    assert owed(order) == NONE


@pytest.mark.parametrize("channel", ["shop", "card"])
def test_cancelling_a_prepaid_order_leaves_the_paying_back_to_its_channel(channel: str):
    order = new_order(prepaid=True)
    order.channel = channel
    heard(order, identified(), held(), priced())
    assert names(cancelled(order)) == ["OrderCancelled", "RefundRequested", "PaymentRefunded"]
    assert order.payment is not None
    assert order.payment.refunds == {}


def test_a_rejected_or_expired_order_cannot_be_cancelled():
    order = new_order()
    expired(order)
    assert cancel(order, "requested", NOW) == Refusal("the order is expired already")


def test_a_placed_order_expires_and_says_what_was_missing():
    order = new_order()
    heard(order, held())
    expected = OrderExpired(occurred_at=NOW, order_id=order_id(), waiting_for=("identification", "price"))
    assert expired(order) == [expected]


def test_an_order_does_not_expire_before_the_provider_has_closed_its_payment():
    order = paying()
    assert expired(order) == []
    assert order.payment is not None
    assert (order.state, order.payment.closing) == ("paying", True)
    assert names(reported(order, report("cancelled"))) == ["PaymentDeclined", "OrderExpired"]


def test_a_payment_captured_before_it_could_be_closed_confirms_the_order():
    order = paying()
    expired(order)
    assert names(reported(order, captured())) == ["PaymentCaptured", "OrderConfirmed"]


def test_what_is_confirmed_or_ended_does_not_expire():
    ended = new_order()
    cancelled(ended)
    assert expired(confirmed()) == expired(ended) == []
