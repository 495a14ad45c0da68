"""Given a quote, an order that names it pays what was shown, or hears why not; each event is sent twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

import pytest

from services.pricing.asks import Ask
from services.pricing.decisions import Book, decide
from services.pricing.discounts import Coupon
from services.pricing.redemption import Quote
from services.pricing.rules import ListPrice, Priced, Rules, price
from shared.events.order import (
    Destination,
    OrderCancelled,
    OrderConfirmed,
    OrderEvent,
    OrderExpired,
    OrderLine,
    OrderPlaced,
    OrderRejected,
)
from shared.events.pricing import OrderPriced, PriceRefused, QuoteEvent

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANNA, BERT, QUOTE = UUID(int=1), UUID(int=2), UUID(int=3)
LAMP, CUPS = OrderLine(line=1, sku="RED-LAMP", quantity=1), OrderLine(line=2, sku="BLUE-CUP", quantity=2)
TEN = Coupon("TEN", percent=Decimal(10), limit_total=5, limit_per_customer=5)


def order_id(number: int) -> UUID:
    return uuid5(ANNA, str(number))


def order(number: int = 1, **changes: Any) -> OrderPlaced:
    asked: dict[str, Any] = {
        "occurred_at": NOW, "order_id": order_id(number), "channel": "shop", "external_reference": str(number),
        "customer_id": ANNA, "currency": "EUR", "lines": (LAMP, CUPS), "coupon": "TEN", "points": 100,
        "destination": Destination(country="DE"), "quote_id": QUOTE,
    }  # fmt: skip
    return OrderPlaced(**(asked | changes))


def ends(number: int = 1) -> Sequence[OrderEvent]:
    return (
        OrderRejected(occurred_at=NOW, order_id=order_id(number), reason="stock"),
        OrderCancelled(occurred_at=NOW, order_id=order_id(number)),
        OrderExpired(occurred_at=NOW, order_id=order_id(number)),
    )


def confirmed(number: int = 1) -> OrderConfirmed:
    return OrderConfirmed(
        occurred_at=NOW, order_id=order_id(number), customer_id=ANNA, recipient_id=ANNA, total=Decimal(1),
        currency="EUR",
    )  # fmt: skip


def book(coupon: Coupon = TEN) -> Book:
    """A lamp of 20.00 and two cups of 4.50 were quoted with ten per cent off and 100 points; all is dearer now."""
    then = Rules(
        list_prices={
            ("RED-LAMP", "EUR", NOW): ListPrice(Decimal("20.00"), "retail"),
            ("BLUE-CUP", "EUR", NOW): ListPrice(Decimal("4.50"), "retail"),
        },
        coupons={"TEN": TEN},
    )
    ask = Ask.of(order())
    priced = price(then, ask)
    assert isinstance(priced, Priced)
    now = {key: replace(one, unit_price=one.unit_price * 2) for key, one in then.list_prices.items()}
    rules = Rules(list_prices=now, coupons={coupon.code: replace(coupon, held_by=dict(coupon.held_by))})
    return Book(rules=rules, quotes={QUOTE: Quote(QUOTE, ask, priced, NOW + timedelta(minutes=15))})


def when(given: Book, *events: OrderEvent, recorded_at: datetime = NOW) -> list[QuoteEvent]:
    said: list[QuoteEvent] = []
    for event in [twice for one in events for twice in (one, one)]:
        if isinstance(event, OrderPlaced):
            given.buyers[event.order_id] = event.customer_id
        for answer in decide(given, event, recorded_at):
            given.evolve(answer)
            said.append(answer)
        given.note(event)
    return said


def outcomes(events: Sequence[QuoteEvent]) -> list[str]:
    return [one.reason if isinstance(one, PriceRefused) else type(one).__name__ for one in events]


def quote(given: Book) -> tuple[str, UUID | None]:
    return given.quotes[QUOTE].state, given.quotes[QUOTE].order_id


def test_the_shown_price_is_paid_though_all_has_become_dearer() -> None:
    given = book()
    (priced,) = when(given, order())
    assert isinstance(priced, OrderPriced)
    assert (priced.total, priced.discount, priced.points_value) == (Decimal("25.10"), Decimal("2.90"), Decimal("1.00"))
    assert (priced.quote_id, priced.coupon, given.rules.coupons["TEN"].used) == (QUOTE, "TEN", 1)
    assert quote(given) == ("held", order_id(1))


def test_without_the_quote_todays_price_is_paid() -> None:
    (priced,) = when(book(), order(quote_id=None))
    assert isinstance(priced, OrderPriced)
    assert (priced.total, priced.quote_id) == (Decimal("51.20"), None)


def test_a_point_is_worth_what_it_was_when_the_quote_was_given() -> None:
    given = book()
    given.rules.point_values = {"EUR": Decimal("0.05")}
    (priced,) = when(given, order())
    assert isinstance(priced, OrderPriced)
    assert priced.point_value == Decimal("0.01")


def test_a_quote_of_an_older_release_is_answered_with_todays_value_of_a_point() -> None:
    given = book()
    given.rules.point_values = {"EUR": Decimal("0.05")}
    given.quotes[QUOTE].priced = replace(given.quotes[QUOTE].priced, point_value=None)
    (priced,) = when(given, order())
    assert isinstance(priced, OrderPriced)
    assert (priced.point_value, priced.points_value) == (Decimal("0.05"), Decimal("1.00"))


def test_the_same_lines_in_another_order_are_the_same_and_keep_their_own_numbers() -> None:
    lines = (CUPS.model_copy(update={"line": 1}), LAMP.model_copy(update={"line": 2}))
    (priced,) = when(book(), order(lines=lines))
    assert isinstance(priced, OrderPriced)
    assert [(one.line, one.sku, one.total) for one in priced.lines] == [
        (1, "BLUE-CUP", Decimal("8.10")), (2, "RED-LAMP", Decimal("18.00")),
    ]  # fmt: skip


ONE_CUP = OrderLine(line=2, sku="BLUE-CUP", quantity=1)
DIFFERENT: Sequence[tuple[dict[str, Any], str]] = [
    ({"currency": "GBP"}, "currency"),
    ({"lines": (LAMP,)}, "lines"),
    ({"lines": (LAMP, CUPS, CUPS)}, "lines"),
    ({"lines": (LAMP, ONE_CUP, ONE_CUP)}, "lines"),
    ({"lines": (LAMP, CUPS.model_copy(update={"unit_price": Decimal("0.01")}))}, "lines"),
    ({"coupon": None}, "coupon"),
    ({"points": 101}, "points"),
    ({"customer_id": BERT}, "customer_id"),
    ({"customer_id": None, "points": 0}, "customer_id, points"),
    ({"destination": Destination(country="FR")}, "country"),
]


@pytest.mark.parametrize(("changes", "named"), DIFFERENT)
def test_an_order_of_something_else_is_refused_and_told_what_differs(changes: dict[str, Any], named: str) -> None:
    given = book()
    (refused,) = when(given, order(**changes))
    assert isinstance(refused, PriceRefused)
    assert (refused.reason, refused.detail) == ("quote_differs", f"not as quoted: {named}")
    assert quote(given) == ("open", None)


def test_a_quote_that_nobody_gave_is_unknown() -> None:
    assert outcomes(when(book(), order(quote_id=BERT))) == ["quote_unknown"]


def test_a_quote_ends_with_the_last_moment_in_which_an_order_was_recorded() -> None:
    end = NOW + timedelta(minutes=15)
    assert outcomes(when(book(), order(), recorded_at=end - timedelta(microseconds=1))) == ["OrderPriced"]
    given = book()
    assert outcomes(when(given, order(), recorded_at=end)) == ["quote_expired"]
    assert (quote(given), given.rules.coupons["TEN"].used) == (("open", None), 0)


def test_business_time_does_not_prolong_a_quote() -> None:
    early = order(occurred_at=NOW - timedelta(days=1))
    assert outcomes(when(book(), early, recorded_at=NOW + timedelta(hours=1))) == ["quote_expired"]


def test_of_two_orders_one_gets_the_quote() -> None:
    given = book()
    assert outcomes(when(given, order(1), order(2))) == ["OrderPriced", "quote_used"]
    assert quote(given) == ("held", order_id(1))


def test_the_coupons_limits_still_apply() -> None:
    for coupon in (replace(TEN, used=5), replace(TEN, held_by={ANNA: 5})):
        given = book(coupon)
        assert outcomes(when(given, order())) == ["coupon_used_up"]
        assert quote(given) == ("open", None)


def test_what_the_coupon_takes_off_is_as_quoted_whatever_its_terms_are_now() -> None:
    (priced,) = when(book(replace(TEN, percent=Decimal(1), valid_until=NOW)), order())
    assert isinstance(priced, OrderPriced)
    assert priced.discount == Decimal("2.90")


@pytest.mark.parametrize("end", ends(), ids=lambda one: type(one).__name__)
def test_an_order_that_ends_gives_its_quote_back_once(end: OrderEvent) -> None:
    given = book()
    said = when(given, order(1), end, order(2), *ends(1))
    assert outcomes(said) == ["OrderPriced", "CouponReleased", "OrderPriced"]
    assert quote(given) == ("held", order_id(2))


@pytest.mark.parametrize("end", ends(), ids=lambda one: type(one).__name__)
def test_an_order_refused_the_quote_does_not_give_it_back_for_another(end: OrderEvent) -> None:
    given = book()
    when(given, order(2), order(1), end)
    assert quote(given) == ("held", order_id(2))


def test_the_quote_of_a_confirmed_order_is_spent_even_when_that_is_cancelled() -> None:
    given = book()
    said = when(given, order(1), confirmed(), ends()[1], order(2))
    assert outcomes(said) == ["OrderPriced", "CouponReleased", "quote_used"]
    assert quote(given) == ("spent", order_id(1))


def test_an_order_that_ended_before_it_was_seen_takes_no_quote() -> None:
    given = book()
    assert when(given, ends()[0], order()) == []
    assert quote(given) == ("open", None)
