"""Given a book, when an order event comes, then it is answered once, also when it comes twice, late or out of order."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid5

from services.pricing.decisions import Book, decide
from services.pricing.discounts import Coupon
from services.pricing.rules import ListPrice, Rules
from shared.events.order import (
    Destination,
    OrderCancelled,
    OrderEvent,
    OrderExpired,
    OrderLine,
    OrderPlaced,
    OrderRejected,
)
from shared.events.pricing import CouponReleased, OrderPriced, PriceRefused, QuoteEvent

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANNA, BERT = UUID(int=1), UUID(int=2)


def order_id(number: int) -> UUID:
    return uuid5(ANNA, str(number))


def placed(number: int, sku: str = "RED-LAMP", coupon: str | None = None, buyer: UUID | None = ANNA) -> OrderPlaced:
    return OrderPlaced(
        occurred_at=NOW, order_id=order_id(number), channel="shop", external_reference=str(number), customer_id=buyer,
        currency="EUR", lines=(OrderLine(line=1, sku=sku, quantity=1),), coupon=coupon,
        destination=Destination(country="DE"),
    )  # fmt: skip


def rejected(number: int) -> OrderRejected:
    return OrderRejected(occurred_at=NOW, order_id=order_id(number), reason="stock")


def ends(number: int) -> list[OrderEvent]:
    return [
        rejected(number),
        OrderCancelled(occurred_at=NOW, order_id=order_id(number)),
        OrderExpired(occurred_at=NOW, order_id=order_id(number)),
    ]


def book(*coupons: Coupon) -> Book:
    rules = Rules(
        list_prices={("RED-LAMP", "EUR", NOW): ListPrice(Decimal("20.00"), "retail")},
        coupons={coupon.code: coupon for coupon in coupons},
    )
    return Book(rules=rules)


def when(given: Book, *events: OrderEvent) -> list[QuoteEvent]:
    """What is said to these events, each of them sent twice."""
    said: list[QuoteEvent] = []
    for event in [twice for one in events for twice in (one, one)]:
        if isinstance(event, OrderPlaced):
            given.buyers[event.order_id] = event.customer_id
        for answer in decide(given, event, NOW):
            given.evolve(answer)
            said.append(answer)
        given.note(event)
    return said


def kinds(events: Sequence[QuoteEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_an_order_is_priced_once() -> None:
    (priced,) = when(book(), placed(1))
    assert isinstance(priced, OrderPriced)
    assert priced.total == Decimal("20.00")


def test_every_price_says_what_a_point_is_worth() -> None:
    for values, worth in (({}, "0.01"), ({"EUR": Decimal("0.02")}, "0.02"), ({"GBP": Decimal("0.02")}, "0.01")):
        given = book()
        given.rules.point_values = values
        (priced,) = when(given, placed(1))
        assert isinstance(priced, OrderPriced)
        assert priced.point_value == Decimal(worth)


def test_an_order_without_a_price_is_refused_once() -> None:
    (refused,) = when(book(), placed(1, sku="PINK-TOAD"))
    assert isinstance(refused, PriceRefused)
    assert refused.reason == "no_price"


def test_an_order_that_ended_before_it_was_seen_is_never_answered() -> None:
    for end in ends(1):
        given = book(Coupon("TEN", Decimal(10), limit_total=1))
        assert when(given, end, placed(1, coupon="TEN")) == []
        assert given.orders[order_id(1)].state == "ended"
        assert given.rules.coupons["TEN"].used == 0


def test_every_end_gives_the_coupon_back_once() -> None:
    for end in ends(1):
        given = book(Coupon("TEN", Decimal(10), limit_total=1, limit_per_customer=1))
        said = when(given, placed(1, coupon="TEN"), end, *ends(1), placed(2, coupon="TEN"))
        assert kinds(said) == ["OrderPriced", "CouponReleased", "OrderPriced"]
        assert given.rules.coupons["TEN"].used == 1
        assert given.orders[order_id(1)].version == 2


def test_an_order_without_a_coupon_ends_silently() -> None:
    assert kinds(when(book(), placed(1), rejected(1))) == ["OrderPriced"]


def test_a_coupon_for_ten_serves_ten_of_fifty() -> None:
    given = book(Coupon("TEN", Decimal(10), limit_total=10))
    said = when(given, *(placed(number, coupon="TEN", buyer=None) for number in range(50)))
    assert kinds(said).count("OrderPriced") == 10
    assert {one.reason for one in said if isinstance(one, PriceRefused)} == {"coupon_used_up"}


def test_a_coupon_for_one_each_serves_each_once() -> None:
    given = book(Coupon("HELLO", Decimal(10), limit_per_customer=1))
    said = when(given, *(placed(n, coupon="HELLO", buyer=buyer) for n, buyer in enumerate([ANNA, BERT, ANNA])))
    assert kinds(said) == ["OrderPriced", "OrderPriced", "PriceRefused"]


def test_a_refused_order_holds_no_coupon() -> None:
    given = book(Coupon("TEN", Decimal(10), limit_total=1))
    said = when(given, placed(1, sku="PINK-TOAD", coupon="TEN"), rejected(1))
    assert kinds(said) == ["PriceRefused"]
    assert given.rules.coupons["TEN"].used == 0


def test_a_release_says_when_and_what() -> None:
    said = when(book(Coupon("TEN", Decimal(10))), placed(1, coupon="TEN"), rejected(1))
    assert said[-1] == CouponReleased(occurred_at=NOW, order_id=order_id(1), coupon="TEN")
