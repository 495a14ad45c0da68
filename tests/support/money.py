"""Orders at decisions' level: heard, decided and evolved as the handlers do, with every word said twice."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from services.order.cancellations import Refusal, cancel
from services.order.decisions import decide, expire, finish
from services.order.payments.decisions import PaymentReport, refunded, settle
from services.order.settlement.decisions import post
from services.order.state import Answer, Order
from shared.events.order import OrderEvent
from tests.support.orders import NOW, held, identified, order_id, priced


def new_order(*, prepaid: bool = False, expected_total: str | None = None) -> Order:
    expected = None if expected_total is None else Decimal(expected_total)
    return Order(order_id(), "shop", "EUR", expected_total=expected, prepaid=prepaid, version=1)


def evolved(order: Order, events: Sequence[OrderEvent]) -> list[OrderEvent]:
    """These events and what follows from them at once, as the store applies them; each balances in the books."""
    said: list[OrderEvent] = []
    pending = list(events) or finish(order, NOW)
    while pending:
        for event in pending:
            for posting in post(order, event):
                assert sum(posting.amounts.values()) == 0
            order.evolve(event)
        said += pending
        pending = finish(order, NOW)
    return said


def heard(order: Order, *answers: Answer) -> list[OrderEvent]:
    """What follows from these answers, each said twice."""
    said: list[OrderEvent] = []
    for answer in [one for one in answers for _ in range(2)]:
        order.hear(answer)
        said += evolved(order, decide(order, answer))
    return said


def reported(order: Order, *reports: PaymentReport) -> list[OrderEvent]:
    """What follows from these words of the provider, each said twice."""
    said: list[OrderEvent] = []
    for report in [one for one in reports for _ in range(2)]:
        said += evolved(order, settle(order, report, NOW))
    return said


def paid_out(order: Order) -> list[OrderEvent]:
    """Every open refund goes through; told twice."""
    said: list[OrderEvent] = []
    for refund_id in [twice for one in list(order.payment.refunds if order.payment else ()) for twice in (one, one)]:
        said += evolved(order, refunded(order, refund_id, NOW))
    return said


def cancelled(order: Order, reason: str = "requested") -> list[OrderEvent]:
    """A cancellation, sent twice, that is not refused."""
    said: list[OrderEvent] = []
    for _ in range(2):
        events = cancel(order, reason, NOW)
        assert not isinstance(events, Refusal)
        said += evolved(order, events)
    return said


def expired(order: Order) -> list[OrderEvent]:
    """The deadline, judged twice."""
    return evolved(order, expire(order, NOW)) + evolved(order, expire(order, NOW))


def paying(total: str = "40.00") -> Order:
    order = new_order()
    heard(order, identified(), held(), priced(total))
    assert order.state == "paying"
    return order


def confirmed(total: str = "40.00") -> Order:
    order = paying(total)
    reported(order, captured(total))
    assert order.state == "confirmed"
    return order


def captured(amount: str = "40.00") -> PaymentReport:
    return PaymentReport("captured", Decimal(amount), "pay_1")


def report(status: str, reason: str = "", amount: str = "40.00") -> PaymentReport:
    url = "https://bank.example/3ds" if status == "requires_action" else None
    return PaymentReport(status, Decimal(amount), "pay_1", reason, url)


def names(events: Sequence[OrderEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def owed(order: Order) -> Decimal:
    """What the merchant has of the buyer's money, open refunds taken off."""
    return order.payment.refundable if order.payment else Decimal(0)
