"""Given an order, when its life goes on, then its buyer is told of each turn at most once."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from services.notify.decisions import MAX_SKUS, Book, Heard, Rules, decide, facts
from shared.events.customer import BuyerIdentified
from shared.events.notify import CareEvent, CareFailed, CareTriggered
from shared.events.order import (
    Destination,
    OrderCancelled,
    OrderConfirmed,
    OrderExpired,
    OrderLine,
    OrderLinesCancelled,
    OrderPlaced,
    OrderRejected,
    OrderSettled,
    ParcelItem,
    ParcelLate,
    ParcelLost,
    ParcelRefused,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ORDER, ANNA = UUID(int=1), UUID(int=2)

PLACED = OrderPlaced(
    occurred_at=NOW, order_id=ORDER, channel="shop", external_reference="1001", customer_id=ANNA, currency="EUR",
    lines=(OrderLine(line=1, sku="RED-LAMP", quantity=1),), destination=Destination(country="DE"),
)  # fmt: skip
GUEST = PLACED.model_copy(update={"customer_id": None})
IDENTIFIED = BuyerIdentified(occurred_at=NOW, order_id=ORDER, customer_id=ANNA, recipient_id=UUID(int=3))
CONFIRMED = OrderConfirmed(
    occurred_at=NOW, order_id=ORDER, customer_id=ANNA, recipient_id=UUID(int=3), total=Decimal("20.00"), currency="EUR"
)
REJECTED = OrderRejected(occurred_at=NOW, order_id=ORDER, reason="stock")
EXPIRED = OrderExpired(occurred_at=NOW, order_id=ORDER, waiting_for=("payment",))
CANCELLED = OrderCancelled(occurred_at=NOW, order_id=ORDER)
LATE = ParcelLate(occurred_at=NOW, order_id=ORDER, parcel=1, promised_at=NOW)
LOST = ParcelLost(occurred_at=NOW, order_id=ORDER, parcel=1, items=(ParcelItem(sku="RED-LAMP", quantity=2),))
REFUSED = ParcelRefused(occurred_at=NOW, order_id=ORDER, parcel=1, reason="no such address")
GIVEN_UP = OrderLinesCancelled(
    occurred_at=NOW, order_id=ORDER, lines=(), amount=Decimal(10), currency="EUR", reason="undeliverable"
)
SETTLED = OrderSettled(occurred_at=NOW, order_id=ORDER, customer_id=ANNA, amount=Decimal(20), currency="EUR")


def when(
    *events: Heard, rules: Rules | None = None, after: timedelta = timedelta(), sent: tuple[str, ...] = ()
) -> list[CareEvent]:
    """What is said after these events, each of them sent twice and recorded ``after`` it occurred; the messages of
    ``sent`` triggers leave at once."""
    book, said = Book(NOW, rules or Rules()), list[CareEvent]()
    for event in [twice for one in events for twice in (one, one)]:
        for care in decide(book, event, event.occurred_at + after):
            assert book.evolve(care) == len(said) + 1
            said.append(care)
        book.note(event)
        for order in book.orders.values():
            order.unsent -= set(sent)
    return said


def triggered(*events: Heard, rules: Rules | None = None, after: timedelta = timedelta()) -> list[str]:
    said = when(*events, rules=rules, after=after)
    return [care.trigger for care in said if isinstance(care, CareTriggered)]


def stopped(*events: Heard, sent: tuple[str, ...] = (), rules: Rules | None = None) -> list[tuple[str, str]]:
    said = when(*events, sent=sent, rules=rules)
    return [(care.trigger, care.reason) for care in said if isinstance(care, CareFailed)]


def whom(*events: Heard) -> list[tuple[str, UUID | None, str | None]]:
    return [(one.trigger, one.customer_id, one.reason) for one in when(*events) if isinstance(one, CareTriggered)]


def test_a_confirmed_order_triggers_once() -> None:
    assert whom(PLACED, CONFIRMED) == [("order_confirmed", ANNA, None)]


def test_a_no_is_told_with_its_reason_to_the_buyer_known_from_the_order() -> None:
    assert whom(PLACED, REJECTED) == [("order_refused", ANNA, "stock")]
    assert whom(PLACED, EXPIRED) == [("order_expired", ANNA, "payment")]
    assert whom(PLACED, CANCELLED) == [("order_cancelled", ANNA, "requested")]


def test_a_buyer_is_known_from_the_order_its_identification_or_its_confirmation() -> None:
    assert whom(GUEST, REJECTED) == [("order_refused", None, "stock")]
    assert whom(GUEST, IDENTIFIED, REJECTED) == [("order_refused", ANNA, "stock")]
    assert whom(IDENTIFIED, GUEST, REJECTED) == [("order_refused", ANNA, "stock")]
    assert whom(GUEST, CONFIRMED, CANCELLED)[1] == ("order_cancelled", ANNA, "requested")


def test_an_order_whose_buyer_becomes_known_is_remembered_as_such() -> None:
    book = Book(NOW)
    for event in (GUEST, REJECTED):
        book.note(event)
    assert book.identified == set()
    book.note(IDENTIFIED)
    assert book.identified == {ORDER}


def test_a_delivered_order_is_told_of_all_that_happened() -> None:
    assert triggered(PLACED, CONFIRMED, LATE, SETTLED) == ["order_confirmed", "parcel_late", "thank_you"]


def test_nobody_is_thanked_for_an_order_whose_parcel_was_lost_or_refused() -> None:
    assert triggered(PLACED, CONFIRMED, LOST, SETTLED) == ["order_confirmed", "parcel_lost"]
    assert triggered(PLACED, CONFIRMED, REFUSED, SETTLED) == ["order_confirmed", "parcel_undeliverable"]
    assert triggered(PLACED, CONFIRMED, GIVEN_UP, SETTLED) == ["order_confirmed", "parcel_undeliverable"]


@pytest.mark.parametrize(
    ("what", "reason", "told"), [(LOST, "lost", "parcel_lost"), (LOST, "nothing_left", "parcel_lost"),
                                 (REFUSED, "undeliverable", "parcel_undeliverable")],
)  # fmt: skip
def test_an_order_that_ends_with_its_parcels_is_told_of_them_and_not_that_nothing_was_sent(
    what: Heard, reason: str, told: str
) -> None:
    life = (PLACED, CONFIRMED, what, CANCELLED.model_copy(update={"reason": reason}))
    assert triggered(*life) == ["order_confirmed", told]
    assert stopped(*life) == [("order_confirmed", "order_ended")]


def test_a_parcel_given_up_is_told_as_undeliverable_whether_anything_else_is_left_or_not() -> None:
    ended = CANCELLED.model_copy(update={"reason": "undeliverable"})
    for life in ((GIVEN_UP,), (ended,), (REFUSED, GIVEN_UP, ended)):
        assert triggered(PLACED, CONFIRMED, *life) == ["order_confirmed", "parcel_undeliverable"]


def test_lines_cancelled_on_request_say_nothing_of_parcels() -> None:
    requested = GIVEN_UP.model_copy(update={"reason": "requested"})
    assert triggered(PLACED, CONFIRMED, requested, SETTLED) == ["order_confirmed", "thank_you"]
    ended = CANCELLED.model_copy(update={"reason": "nothing_left"})
    assert triggered(PLACED, CONFIRMED, requested, ended) == ["order_confirmed", "order_cancelled"]


def test_two_late_parcels_are_told_once() -> None:
    second = LATE.model_copy(update={"parcel": 2})
    assert triggered(PLACED, CONFIRMED, LATE, second) == ["order_confirmed", "parcel_late"]


def test_a_late_parcel_is_not_told_once_everything_was_delivered() -> None:
    assert triggered(PLACED, CONFIRMED, SETTLED, LATE) == ["order_confirmed", "thank_you"]


def test_a_confirmation_after_the_end_is_not_told() -> None:
    assert whom(CANCELLED, CONFIRMED) == [("order_cancelled", None, "requested")]


def test_a_cancellation_stops_the_confirmation_that_was_not_sent() -> None:
    said = when(PLACED, CONFIRMED, CANCELLED)
    assert [(type(care), care.trigger) for care in said] == [
        (CareTriggered, "order_confirmed"), (CareFailed, "order_confirmed"), (CareTriggered, "order_cancelled"),
    ]  # fmt: skip
    assert stopped(PLACED, CONFIRMED, CANCELLED) == [("order_confirmed", "order_ended")]
    assert stopped(PLACED, CONFIRMED, CANCELLED, sent=("order_confirmed",)) == []


def test_what_is_no_longer_true_is_not_sent() -> None:
    assert stopped(PLACED, CONFIRMED, LATE, LOST, sent=("order_confirmed",)) == [("parcel_late", "order_ended")]
    assert stopped(PLACED, CONFIRMED, LATE, SETTLED, sent=("order_confirmed",)) == [("parcel_late", "order_ended")]
    assert stopped(PLACED, SETTLED, LOST) == [("thank_you", "order_ended")]
    assert stopped(PLACED, SETTLED, REFUSED) == [("thank_you", "order_ended")]


def test_without_mail_care_is_triggered_and_nothing_needs_to_be_stopped() -> None:
    off = Rules(mail=False)
    assert triggered(PLACED, CONFIRMED, CANCELLED, rules=off) == ["order_confirmed", "order_cancelled"]
    assert stopped(PLACED, CONFIRMED, CANCELLED, rules=off) == []


def test_what_became_known_long_after_it_occurred_triggers_nothing() -> None:
    life = (PLACED, CONFIRMED, LATE, LOST, SETTLED, CANCELLED)
    assert triggered(*life, after=timedelta(days=7, seconds=1)) == []
    assert triggered(*life, after=timedelta(days=7)) != []
    assert triggered(PLACED, CONFIRMED, after=timedelta(days=2), rules=Rules(timedelta(days=1))) == []


def test_a_log_read_from_its_beginning_triggers_nothing_that_is_long_past() -> None:
    for late, said in ((timedelta(days=7), 1), (timedelta(days=7, seconds=1), 0)):
        assert len(decide(Book(NOW + late), CONFIRMED, NOW)) == said


def test_an_order_of_an_unknown_channel_is_silent_where_any_channel_is() -> None:
    assert triggered(CONFIRMED) == ["order_confirmed"]
    assert triggered(CONFIRMED, rules=Rules(silent_channels=frozenset({"bazaar"}))) == []


def test_buyers_of_a_silent_channel_are_not_written_to() -> None:
    rules = Rules(silent_channels=frozenset({"bazaar"}))
    there = PLACED.model_copy(update={"channel": "bazaar"})
    assert triggered(there, CONFIRMED, LOST, CANCELLED, rules=rules) == []
    assert triggered(PLACED, CONFIRMED, rules=rules) == ["order_confirmed"]


def test_an_order_is_remembered_with_its_number_and_a_hundred_of_its_skus() -> None:
    lines = tuple(OrderLine(line=n, sku=f"SKU-{n // 2}", quantity=1) for n in range(300))
    book = Book(NOW)
    book.note(PLACED.model_copy(update={"lines": lines}))
    assert (book.orders[ORDER].channel, book.orders[ORDER].reference) == ("shop", "1001")
    assert book.skus[ORDER] == [f"SKU-{n}" for n in range(MAX_SKUS)]


def test_a_message_says_what_its_event_says() -> None:
    assert facts(CONFIRMED) == {"total": "20.00", "currency": "EUR"}
    assert facts(LATE) == {"promised_at": "2026-03-01T12:00:00+00:00"}
    assert facts(LOST) == {"skus": ["RED-LAMP"]}
    assert facts(REJECTED) == {}
