"""Whatever happens to an order, in whatever order: it ends once, the money follows, and the books balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from services.order.cancellations import Refusal, cancel, cancel_lines
from services.order.decisions import decide, expire, finish
from services.order.payments.decisions import refunded, settle
from services.order.settlement.decisions import Posting, post, post_issue, post_points
from services.order.shipping.decisions import (
    Booking,
    ParcelReport,
    booked,
    handed_over,
    overdue,
    recalled,
    refused,
    tracked,
)
from services.order.state import ENDED, FINAL, LEFT, Order, Parcel
from shared.events.customer import PointsSettled
from shared.events.inventory import IssuedLine, StockIssued
from shared.events.order import OrderEvent, OrderLinesCancelled
from shared.events.pricing import PricedLine
from tests.support.money import captured, new_order, owed, report
from tests.support.orders import (
    ANNA,
    NOW,
    buyer_refused,
    held,
    identified,
    order_id,
    price_refused,
    priced,
    stock_refused,
)

TERMINAL = {"OrderRejected", "OrderCancelled", "OrderExpired", "OrderClosed"}
MONEY = {"PaymentCaptured", "PaymentDeclined", "PaymentRefunded", "RefundRequested"}
PARCELS = {"ParcelBooked", "ParcelRecalled", "ParcelShipped", "ParcelDelivered", "ParcelLate", "ParcelLost"}

LABEL = Booking("post", "par_1", "TRACK1", NOW + timedelta(hours=1), Decimal("4.20"), "EUR")


@dataclass
class Life:
    """An order, what it has said, and what its books hold."""

    order: Order
    said: list[OrderEvent] = field(default_factory=list[OrderEvent])
    books: Counter[str] = field(default_factory=Counter[str])

    def happen(self, events: Sequence[OrderEvent]) -> None:
        pending = list(events) or finish(self.order, NOW)
        while pending:
            for event in pending:
                self.book(post(self.order, event))
                version = self.order.version
                assert self.order.evolve(event) == version + 1
                self.said.append(event)
            pending = finish(self.order, NOW)

    def book(self, postings: Sequence[Posting]) -> None:
        for posting in postings:
            assert sum(posting.amounts.values()) == 0
            assert all(posting.amounts.values())
            for account, amount in posting.amounts.items():
                self.books[account] += amount  # pyright: ignore[reportArgumentType]


Step = Callable[[Life], Sequence[OrderEvent] | Refusal]


def hears(life: Life, answer: object) -> list[OrderEvent]:
    life.order.hear(answer)  # pyright: ignore[reportArgumentType]
    return decide(life.order, answer)  # pyright: ignore[reportArgumentType]


def pays_out(life: Life) -> list[OrderEvent]:
    payment = life.order.payment
    first = next(iter(payment.refunds if payment else ()), None)
    return refunded(life.order, first, NOW) if first else []


def of_parcel(number: int, step: Callable[[Order, Parcel], list[OrderEvent]]) -> Step:
    def take(life: Life) -> list[OrderEvent]:
        parcel = life.order.parcel(number)
        return step(life.order, parcel) if parcel else []

    return take


def is_claimed(order: Order, parcel: Parcel) -> list[OrderEvent]:
    if parcel.state == "planned" and order.state == "confirmed" and order.cancellation is None:
        parcel.state = "booking"
    return []


def issues(number: int) -> Step:
    def take(life: Life) -> list[OrderEvent]:
        parcel = life.order.parcel(number)
        if parcel is None or parcel.state not in LEFT or parcel.issued:
            return []
        lines = tuple(
            IssuedLine(sku=sku, warehouse=parcel.warehouse, quantity=n, unit_cost=Decimal("2.345"), currency="EUR")
            for sku, n in parcel.items.items()
        )
        event = StockIssued(occurred_at=NOW, order_id=order_id(), parcel=number, lines=lines)
        life.book(post_issue(life.order, event))
        return hears(life, event)

    return take


def earns(life: Life) -> list[OrderEvent]:
    if not life.order.settled or life.order.points_settled:
        return []
    event = PointsSettled(occurred_at=NOW, order_id=order_id(), customer_id=ANNA, earned=7)
    life.book(post_points(life.order, event))
    return hears(life, event)


# 34.67 and 11.00 with tax, less discounts of 3.34 and 0.33, less 200 points: 40.00.
LINES = (
    PricedLine(line=1, sku="RED-LAMP", quantity=1, unit_price=Decimal("34.67"), discount=Decimal("3.34"),
               total=Decimal("31.33"), tax=Decimal("5.00")),
    PricedLine(line=2, sku="BLUE-CUP", quantity=2, unit_price=Decimal("5.50"), discount=Decimal("0.33"),
               total=Decimal("10.67"), tax=Decimal("1.71")),
)  # fmt: skip
POINTS = 200
PRICED = priced("40.00", LINES).model_copy(
    update={"discount": Decimal("3.67"), "tax": Decimal("6.71"), "point_value": Decimal("0.01")}
)
ANSWERS = (identified(), held(), PRICED, buyer_refused(), stock_refused(), price_refused())
REPORTS = (
    report("pending"), report("requires_action"), report("declined"), report("cancelled"), captured(),
    captured("12.34"),
)  # fmt: skip
WHERE = tuple(ParcelReport(status, NOW) for status in ("booked", "shipped", "delivered", "lost", "cancelled"))
STEPS: dict[str, Step] = {
    **{f"answer {type(one).__name__}": lambda life, one=one: hears(life, one) for one in ANSWERS},
    **{f"report {one.status} {one.amount}": lambda life, one=one: settle(life.order, one, NOW) for one in REPORTS},
    "cancel": lambda life: cancel(life.order, "requested", NOW),
    "cancel a cup": lambda life: cancel_lines(life.order, {2: 1}, "requested", NOW),
    "cancel the lamp": lambda life: cancel_lines(life.order, {1: 1}, "requested", NOW),
    "expire": lambda life: expire(life.order, NOW),
    "refund paid out": pays_out,
    "points": earns,
}
for n in (1, 2):
    STEPS.update(
        {
            f"claim {n}": of_parcel(n, is_claimed),
            f"book {n}": of_parcel(n, lambda order, parcel: booked(order, parcel, LABEL, NOW)),
            f"refuse {n}": of_parcel(n, lambda order, parcel: refused(order, parcel, "no such address", NOW)),
            f"give back {n}": of_parcel(n, lambda order, parcel: recalled(order, parcel, NOW, granted=True)),
            f"keep {n}": of_parcel(n, lambda order, parcel: recalled(order, parcel, NOW, granted=False)),
            f"overdue {n}": of_parcel(n, lambda o, p: overdue(o, p, NOW + timedelta(hours=2), timedelta(days=1))),
            f"give up {n}": of_parcel(n, lambda o, p: overdue(o, p, NOW + timedelta(days=2), timedelta(days=1))),
            f"hand over {n}": lambda life, n=n: handed_over(life.order, n, NOW),
            f"issue {n}": issues(n),
            **{
                f"{one.status} {n}": of_parcel(n, lambda order, parcel, one=one: tracked(order, parcel, one, NOW))
                for one in WHERE
            },
        }
    )
ROADS = {
    "afresh": [],
    "to be paid": ["answer BuyerIdentified", "answer StockHeld", "answer OrderPriced"],
    "confirmed": ["answer BuyerIdentified", "answer StockHeld", "answer OrderPriced", "report captured 40.00"],
}  # fmt: skip
ROADS["booked"] = [*ROADS["confirmed"], "claim 1", "book 1", "claim 2", "book 2"]
ROADS["one shipped"] = [*ROADS["booked"], "shipped 1"]
ROADS["delivered"] = [*ROADS["one shipped"], "delivered 1", "shipped 2", "delivered 2", "issue 2"]


def goes_well(life: Life, rounds: int = 12) -> None:
    """From now on everybody does what he should: both parcels go their way, and what is asked is answered."""
    for _ in range(rounds):
        for n in (1, 2):
            for name in (f"give back {n}", f"claim {n}", f"book {n}", f"delivered {n}", f"issue {n}"):
                events = STEPS[name](life)
                assert not isinstance(events, Refusal)
                life.happen(events)
        for name in ("refund paid out", "refund paid out", "points"):
            life.happen(STEPS[name](life))  # pyright: ignore[reportArgumentType]


@settings(max_examples=1000)
@given(st.sampled_from(["confirmed", "booked", "one shipped"]), st.lists(st.sampled_from(sorted(STEPS)), max_size=30))
def test_a_confirmed_order_comes_to_its_end_once_everybody_answers(road: str, steps: list[str]):
    life = Life(new_order())
    life.order.points = POINTS
    for name in [*ROADS[road], *steps]:
        events = STEPS[name](life)
        if not isinstance(events, Refusal):
            life.happen(events)
    goes_well(life)
    assert life.order.state in ENDED, (life.order.parcels, life.order.cancellation)
    holds_of_books(life)


def test_two_booked_parcels_are_called_back_once_each_and_the_order_is_cancelled():
    life = Life(new_order())
    for name in [*ROADS["booked"], "cancel", "give back 1", "claim 1", "book 1", "give back 2"]:
        life.happen(STEPS[name](life))  # pyright: ignore[reportArgumentType]
    names = [type(event).__name__ for event in life.said]
    assert life.order.state == "cancelled"
    assert (names.count("CancellationRequested"), names.count("ParcelRecalled")) == (1, 2)


@settings(max_examples=1500)
@given(st.sampled_from(sorted(ROADS)), st.lists(st.sampled_from(sorted(STEPS)), max_size=30))
def test_an_order_ends_once_and_keeps_no_money_it_owes(road: str, steps: list[str]):
    life = Life(new_order())
    order = life.order
    order.points = POINTS
    for name in [*ROADS[road], *steps]:
        before, version = order.state, order.version
        events = STEPS[name](life)
        if isinstance(events, Refusal):
            assert (order.state, order.version) == (before, version)
            continue
        if before in ENDED:
            assert {type(event).__name__ for event in events} <= MONEY | PARCELS, (name, events)
        life.happen(events)
        assert owed(order) >= 0
    names = [type(event).__name__ for event in life.said]
    assert sum(name in TERMINAL for name in names) == (order.state in ENDED)
    assert names.count("PaymentCaptured") <= 1
    assert names.count("OrderConfirmed") <= 1
    assert names.count("OrderSettled") == order.settled
    if order.state in ENDED - {"closed"}:
        assert owed(order) == 0
    if order.state in ("confirmed", "closed"):
        assert order.payment is not None
        assert order.total is not None
        assert order.payment.captured == order.total
        assert owed(order) == order.total - order.cancelled_amount
    holds_of_parcels(life)
    holds_of_books(life)


def holds_of_parcels(life: Life) -> None:
    """Nothing leaves that was cancelled, and nothing is settled before all of it came."""
    order = life.order
    lost = sum(name == "ParcelLost" for name in (type(event).__name__ for event in life.said))
    assert sum(parcel.state == "lost" for parcel in order.parcels) == lost
    if order.state == "confirmed" and not order.cancellation:
        planned: Counter[str] = Counter()
        for parcel in order.parcels:
            if parcel.state not in ("lost", "refused"):
                planned.update(parcel.items)
        asked = {"RED-LAMP": 1 - order.cancelled_lines.get(1, 0), "BLUE-CUP": 2 - order.cancelled_lines.get(2, 0)}
        assert planned == {sku: units for sku, units in asked.items() if units}
    if order.settled:
        assert all(parcel.state in FINAL for parcel in order.parcels)
        assert any(parcel.state == "delivered" for parcel in order.parcels)
    if order.state == "closed":
        assert all(parcel.issued for parcel in order.parcels if parcel.state in LEFT)


def holds_of_books(life: Life) -> None:
    order, books = life.order, life.books
    payment = order.payment
    kept = payment.captured - payment.refunded if payment else Decimal(0)
    assert books["cash"] + books["provider_fees"] + books["channel_fees"] == kept
    if order.state in ENDED and not (payment and (payment.refunds or payment.open)):
        assert books["receivable"] == 0
    if order.state in ENDED - {"closed"}:
        assert books["revenue"] + books["refunds"] == 0
        assert books["tax"] == books["discount"] == books["points_liability"] == 0
    if order.state == "closed":
        assert order.total is not None
        brought = order.total - order.cancelled_amount
        sold = -(books["revenue"] + books["refunds"] + books["tax"] + books["discount"])
        spent = books["points_liability"] + books["points_granted"]
        assert sold == brought + spent
        back = sum(event.points for event in life.said if isinstance(event, OrderLinesCancelled))
        assert 0 <= back <= POINTS
        assert books["points_granted"] == Decimal("0.07")
