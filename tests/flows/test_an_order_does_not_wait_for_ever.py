"""Deadlines: judged when what came in time has been heard, and never before."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator

import pytest

from tests.flows.market import Market, detail, steps, until

IMPATIENT = {"ISTHMUS_ANSWER_DEADLINE": "3", "ISTHMUS_PAYMENT_DEADLINE": "3"}


@pytest.fixture(scope="module")
async def impatient(market: Market) -> AsyncGenerator[Market]:
    """The order service waits three seconds for answers, and three for the money."""
    await market.start(["order"], order=IMPATIENT)
    yield market
    await market.start(["order", "pricing"])


async def stop(market: Market, service: str) -> None:
    await asyncio.to_thread(market.platform.stack.stop, service)


async def relayed(market: Market, service: str) -> None:
    """What the service had to say is in Kafka."""

    async def nothing_waits() -> bool:
        return not await market.rows(service, "SELECT FROM outbox")

    await until(f"{service} has said everything", nothing_waits)


async def test_an_order_without_a_price_expires_and_gives_everything_back(impatient: Market):
    lamp, _ = await impatient.lamps_and_cups()
    member = await impatient.customer(points=10)
    await stop(impatient, "pricing")
    order_id = await impatient.place(impatient.order((lamp, 1), customer_id=member, points=10))
    await until("the other two answered", lambda: waits_for(impatient, order_id, ["price"]))
    assert await impatient.available(lamp) == 99
    order = await impatient.outcome(order_id)
    assert (order["state"], detail(order, "OrderExpired")) == ("expired", {"waiting_for": ["price"]})
    await impatient.gives_everything_back(order_id)
    assert await impatient.available(lamp) == 100

    await impatient.start(["pricing"], order=IMPATIENT)  # it comes back, and answers too late

    async def answered() -> bool:
        return bool(await impatient.rows("pricing", "SELECT FROM order_prices WHERE order_id = $1", order_id))

    await until("pricing has seen the order", answered)
    await impatient.gives_everything_back(order_id)
    assert steps(await impatient.look(order_id)) == ["OrderPlaced", "OrderExpired"]
    assert (await impatient.buy((lamp, 1)))["state"] == "confirmed"


async def waits_for(market: Market, order_id: str, legs: list[str]) -> bool:
    return (await market.look(order_id))["waiting_for"] == legs


async def test_answers_that_waited_in_kafka_count_although_the_deadline_has_passed(impatient: Market):
    lamp, _ = await impatient.lamps_and_cups()
    await stop(impatient, "pricing")  # so that no order can be decided yet
    ids = [await impatient.place(impatient.order((lamp, 1))) for _ in range(3)]
    await relayed(impatient, "order")
    await stop(impatient, "order")
    await impatient.start(["pricing"], order=IMPATIENT)

    async def all_priced() -> bool:
        return len(await impatient.rows("pricing", "SELECT FROM order_prices WHERE order_id = ANY($1)", ids)) == 3

    await until("pricing has answered", all_priced)
    await relayed(impatient, "pricing")

    async def overdue() -> bool:
        query = "SELECT FROM orders WHERE order_id = ANY($1) AND state = 'placed' AND deadline_at < now()"
        return len(await impatient.rows("order", query, ids)) == 3

    await until("the deadline has passed", overdue)
    await impatient.start(["order"], order=IMPATIENT)
    for order_id in ids:
        order = await impatient.outcome(order_id)
        assert order["state"] == "confirmed", order["timeline"]


async def test_an_order_that_was_accepted_but_not_announced_gets_its_answers_all_the_same(impatient: Market):
    """Killed between the commit and Kafka, and away for longer than the deadline: nobody could have answered."""
    lamp, _ = await impatient.lamps_and_cups()
    stack = impatient.platform.stack
    await asyncio.to_thread(stack.kill, "kafka", signal.SIGSTOP)
    try:
        order_id = await impatient.place(impatient.order((lamp, 1)))
        await asyncio.to_thread(stack.kill, "order")
        await stop(impatient, "order")
    finally:
        await asyncio.to_thread(stack.kill, "kafka", signal.SIGCONT)
    assert await impatient.rows("order", "SELECT FROM outbox WHERE aggregateid = $1", order_id)

    async def overdue() -> bool:
        query = "SELECT FROM orders WHERE order_id = $1 AND deadline_at < now() - interval '1 s'"
        return bool(await impatient.rows("order", query, order_id))

    await until("the deadline has passed", overdue)
    await impatient.start(["order"], order=IMPATIENT)
    order = await impatient.outcome(order_id)
    assert order["state"] == "confirmed", order["timeline"]


async def test_a_payment_that_never_ends_is_closed_at_the_deadline(impatient: Market):
    lamp, _ = await impatient.lamps_and_cups()
    order = await impatient.buy((lamp, 1), token="tok_never", seconds=30)
    assert (order["state"], detail(order, "OrderExpired")) == ("expired", {"waiting_for": ["payment"]})
    assert steps(order) == ["OrderPlaced", "PaymentRequested", "PaymentDeclined", "OrderExpired"]
    theirs = await impatient.provider("GET", "/v1/payments", params={"reference": order["payment"]["payment_id"]})
    assert [payment["status"] for payment in theirs.json()["data"]] == ["cancelled"]
    await impatient.gives_everything_back(order["order_id"])
    assert await impatient.available(lamp) == 100


async def test_a_buyer_who_never_comes_back_from_the_bank_is_not_waited_for(impatient: Market):
    lamp, _ = await impatient.lamps_and_cups()
    order_id = await impatient.place(impatient.order((lamp, 1), token="tok_3ds"))
    shown = await impatient.paying(order_id, "action_required")
    order = await impatient.outcome(order_id, seconds=30)
    assert order["state"] == "expired"
    assert (await impatient.at_the_bank(shown, "success")).status_code == 409
    await impatient.gives_everything_back(order_id)


async def test_money_that_came_in_time_but_unheard_confirms_the_order_at_the_deadline(impatient: Market):
    lamp, _ = await impatient.lamps_and_cups()
    async with impatient.provider_that(webhook_delay_ms=8000):
        order_id = await impatient.place(impatient.order((lamp, 1), token="tok_3ds"))
        shown = await impatient.paying(order_id, "action_required")
        assert (await impatient.at_the_bank(shown, "success")).status_code == 200
        order = await impatient.outcome(order_id, seconds=30)
    assert order["state"] == "confirmed"
