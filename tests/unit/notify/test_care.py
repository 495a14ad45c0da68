"""Given an order, when its life goes on, then its buyer is told of each turn at most once."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from services.notify.decisions import Book, decide
from shared.events.notify import CareTriggered
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

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ORDER, ANNA = UUID(int=1), UUID(int=2)

PLACED = OrderPlaced(
    occurred_at=NOW, order_id=ORDER, channel="shop", external_reference="1", customer_id=ANNA, currency="EUR",
    lines=(OrderLine(line=1, sku="RED-LAMP", quantity=1),), destination=Destination(country="DE"),
)  # fmt: skip
CONFIRMED = OrderConfirmed(
    occurred_at=NOW, order_id=ORDER, customer_id=ANNA, recipient_id=UUID(int=3), total=Decimal(20), currency="EUR"
)
REJECTED = OrderRejected(occurred_at=NOW, order_id=ORDER, reason="stock")
EXPIRED = OrderExpired(occurred_at=NOW, order_id=ORDER, waiting_for=("payment",))
CANCELLED = OrderCancelled(occurred_at=NOW, order_id=ORDER)


def when(*events: OrderEvent) -> list[tuple[str, UUID | None, str | None]]:
    """What is triggered by these events, each of them sent twice."""
    book, said = Book(), list[CareTriggered]()
    for event in [twice for one in events for twice in (one, one)]:
        for care in decide(book, event):
            assert book.evolve(care) == len(said) + 1
            said.append(care)
        book.note(event)
    return [(care.trigger, care.customer_id, care.reason) for care in said]


def test_a_confirmed_order_triggers_once() -> None:
    assert when(PLACED, CONFIRMED) == [("order_confirmed", ANNA, None)]


def test_a_no_is_told_with_its_reason_to_the_buyer_known_from_the_order() -> None:
    assert when(PLACED, REJECTED) == [("order_refused", ANNA, "stock")]
    assert when(PLACED, EXPIRED) == [("order_expired", ANNA, "payment")]
    assert when(PLACED, CANCELLED) == [("order_cancelled", ANNA, "requested")]


def test_a_confirmed_order_that_is_cancelled_triggers_both() -> None:
    assert [trigger for trigger, _, _ in when(PLACED, CONFIRMED, CANCELLED)] == ["order_confirmed", "order_cancelled"]


def test_a_buyer_unknown_until_the_confirmation_is_remembered_from_it() -> None:
    guest = PLACED.model_copy(update={"customer_id": None})
    assert when(guest, REJECTED) == [("order_refused", None, "stock")]
    assert when(guest, CONFIRMED, CANCELLED)[1] == ("order_cancelled", ANNA, "requested")


def test_a_confirmation_after_the_end_is_not_told() -> None:
    assert when(CANCELLED, CONFIRMED) == [("order_cancelled", None, "requested")]
