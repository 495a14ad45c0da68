"""Whatever happens to an order, in whatever order: it ends once, and the money follows."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from services.order.decisions import ENDED, Order, Refusal, cancel, cancel_lines, decide, expire, refunded, settle
from shared.events.order import OrderEvent
from tests.support.money import captured, new_order, owed, report
from tests.support.orders import NOW, buyer_refused, held, identified, price_refused, priced, stock_refused

TERMINAL = {"OrderRejected", "OrderCancelled", "OrderExpired"}
MONEY = {"PaymentCaptured", "PaymentDeclined", "PaymentRefunded", "RefundRequested"}
FINAL = {"captured", "declined", "cancelled"}

Step = Callable[[Order], list[OrderEvent] | Refusal]


def answers(order: Order, answer: object) -> list[OrderEvent]:
    order.hear(answer)  # pyright: ignore[reportArgumentType]
    return decide(order, answer)  # pyright: ignore[reportArgumentType]


def pays_out(order: Order) -> list[OrderEvent]:
    first = next(iter(order.payment.refunds if order.payment else ()), None)
    return refunded(order, first, NOW) if first else []


ANSWERS = (identified(), held(), priced(), buyer_refused(), stock_refused(), price_refused())
REPORTS = (
    report("pending"), report("requires_action"), report("declined"), report("cancelled"), captured(),
    captured("12.34"),
)  # fmt: skip
STEPS: dict[str, Step] = {
    **{f"answer {type(one).__name__}": lambda order, one=one: answers(order, one) for one in ANSWERS},
    **{f"report {one.status} {one.amount}": lambda order, one=one: settle(order, one, NOW) for one in REPORTS},
    "cancel": lambda order: cancel(order, "requested", NOW),
    "cancel a cup": lambda order: cancel_lines(order, {2: 1}, NOW),
    "expire": lambda order: expire(order, NOW),
    "refund paid out": pays_out,
}


@settings(max_examples=400)
@given(st.booleans(), st.lists(st.sampled_from(sorted(STEPS)), max_size=30))
def test_an_order_ends_once_and_keeps_no_money_it_owes(joined: bool, steps: list[str]):
    order, said = new_order(), list[OrderEvent]()
    begin = ["answer BuyerIdentified", "answer StockHeld", "answer OrderPriced"] if joined else []
    for name in [*begin, *steps]:
        before, version = order.state, order.version
        events = STEPS[name](order)
        if isinstance(events, Refusal):
            assert (order.state, order.version) == (before, version)
            continue
        if before in ENDED:
            assert {type(event).__name__ for event in events} <= MONEY, (name, events)
        for event in events:
            order.evolve(event)
        assert order.version == version + len(events)
        said += events
        assert owed(order) >= 0
    names = [type(event).__name__ for event in said]
    assert sum(name in TERMINAL for name in names) == (order.state in ENDED)
    assert names.count("PaymentCaptured") <= 1
    assert names.count("OrderConfirmed") <= 1
    if order.state in ENDED:
        assert owed(order) == 0
    if order.state == "confirmed":
        assert order.payment is not None
        assert order.total is not None
        assert order.payment.captured == order.total
        assert owed(order) == order.total - order.cancelled_amount
