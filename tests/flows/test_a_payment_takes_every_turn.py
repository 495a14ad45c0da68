"""Payments that are slow, unheard, refused, doubled or late: the money always follows the order."""

from __future__ import annotations

import asyncio

import pytest

from tests.flows.market import Market, steps, until

CONFIRMED = ["OrderPlaced", "PaymentRequested", "PaymentCaptured", "OrderConfirmed"]


@pytest.mark.parametrize("token", ["tok_slow", "tok_timeout", "tok_drop", "tok_lost"])
async def test_a_payment_without_a_clear_answer_is_resolved_and_made_once(market: Market, token: str):
    lamp, _ = await market.lamps_and_cups()
    order = await market.buy((lamp, 1), token=token)
    assert order["state"] == "confirmed"
    assert steps(order) == CONFIRMED
    await market.all_notices_delivered()
    assert str(await market.kept_money(order["order_id"])) == "24.90"
    assert steps(await market.look(order["order_id"])) == CONFIRMED


@pytest.mark.parametrize(("at_the_bank", "state"), [("success", "confirmed"), ("fail", "rejected")])
async def test_a_buyer_who_must_go_to_the_bank_is_shown_the_way(market: Market, at_the_bank: str, state: str):
    lamp, _ = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 1), token="tok_3ds"))
    order = await market.paying(order_id, "action_required")
    assert order["state"] == "paying"
    assert order["waiting_for"] == ["payment"]
    for _ in range(2):  # a buyer may press the button twice
        assert (await market.at_the_bank(order, at_the_bank)).status_code == 200
    order = await market.outcome(order_id)
    assert order["state"] == state
    assert steps(order).count("PaymentActionRequired") == 1
    if state == "rejected":
        assert order["reason"] == "payment_declined"
        await market.gives_everything_back(order_id)


async def test_notices_that_come_twice_late_and_in_any_order_change_nothing(market: Market):
    lamp, _ = await market.lamps_and_cups()
    tokens = ["tok_ok", "tok_slow", "tok_drop", "tok_declined", "tok_slow_declined"] * 4
    async with market.provider_that(webhook_duplicate_rate=1, webhook_reorder_rate=1):
        ids = await asyncio.gather(*(market.place(market.order((lamp, 1), token=token)) for token in tokens))
        outcomes = await asyncio.gather(*(market.outcome(order_id) for order_id in ids))
        await asyncio.gather(*(market.cancel(order_id) for order_id in ids[:5]))  # refunds overtake captures
        before = [steps(await market.look(order_id)) for order_id in ids[5:]]
        await market.all_notices_delivered()
    for token, order in zip(tokens, outcomes, strict=True):
        assert order["state"] == ("rejected" if "declined" in token else "confirmed"), token
    assert [steps(await market.look(order_id)) for order_id in ids[5:]] == before
    for order_id in ids[:5]:
        await market.gives_everything_back(order_id)
        order = await market.look(order_id)
        assert steps(order).count("PaymentCaptured") == steps(order).count("PaymentRefunded") <= 1


async def test_an_order_cancelled_while_its_payment_is_unheard_gets_its_money_back(market: Market):
    lamp, _ = await market.lamps_and_cups()
    async with market.provider_that(webhook_delay_ms=4000):
        order_id = await market.place(market.order((lamp, 1), token="tok_timeout"))
        await market.paying(order_id, "requested")
        cancelled = await market.cancel(order_id, reason="changed_mind")
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
        await market.gives_everything_back(order_id)
    await market.all_notices_delivered()
    order = await market.look(order_id)
    assert (order["state"], order["reason"]) == ("cancelled", "changed_mind")
    assert (order["payment"]["captured"], order["payment"]["refunded"]) == ("24.90", "24.90")
    captured = next(step for step in order["timeline"] if step["type"] == "PaymentCaptured")
    assert captured["detail"]["late"] is True
    assert steps(order).count("PaymentRefunded") == 1
    assert await market.available(lamp) == 100


async def test_a_buyer_at_the_bank_who_cancels_meanwhile_gets_the_money_back(market: Market):
    lamp, _ = await market.lamps_and_cups()
    async with market.provider_that(webhook_delay_ms=3000):
        order_id = await market.place(market.order((lamp, 1), token="tok_3ds"))
        order = await market.paying(order_id, "action_required")
        assert (await market.at_the_bank(order, "success")).status_code == 200
        assert (await market.cancel(order_id)).json()["state"] == "cancelled"
        await market.gives_everything_back(order_id)
    assert (await market.look(order_id))["payment"]["refunded"] == "24.90"


async def test_an_order_cancelled_before_the_bank_is_closed_there(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 1), token="tok_3ds"))
    order = await market.paying(order_id, "action_required")
    assert (await market.cancel(order_id)).status_code == 200
    order = await market.paying(order_id, "declined")
    assert order["state"] == "cancelled"
    assert (await market.at_the_bank(order, "success")).status_code == 409
    await market.gives_everything_back(order_id)


async def test_a_confirmed_order_that_is_cancelled_is_refunded_in_full(market: Market):
    lamp, cup = await market.lamps_and_cups()
    member = await market.customer(points=100)
    order_id = (await market.buy((lamp, 2), (cup, 1), customer_id=member, points=100))["order_id"]
    assert str(await market.kept_money(order_id)) == "55.30"
    await market.cancel(order_id)
    await market.ended(order_id, "cancelled")
    await market.gives_everything_back(order_id)
    order = await market.look(order_id)
    assert (order["payment"]["captured"], order["payment"]["refunded"]) == ("55.30", "55.30")
    assert (await market.available(lamp), await market.available(cup)) == (100, 100)


async def test_parts_that_are_cancelled_are_refunded_to_the_cent(market: Market):
    lamp, cup = await market.lamps_and_cups()
    code, member = market.name("third"), await market.customer(points=37)
    await market.platform.ask("pricing", "PUT", f"/coupons/{code}", json={"percent": "33.33"})
    order = await market.buy((lamp, 3), (cup, 7), coupon=code, customer_id=member, points=37)
    order_id = order["order_id"]
    refused = await market.cancel(order_id, lines=[{"line": 1, "quantity": 4}])
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (409, "lines")
    for lines in ([(1, 1)], [(2, 3)], [(1, 1), (2, 2)]):
        units = [{"line": line, "quantity": quantity} for line, quantity in lines]
        assert (await market.cancel(order_id, lines=units)).is_success
        await market.not_pending(order_id)
    order = await market.look(order_id)
    assert (order["state"], [line["cancelled"] for line in order["lines"]]) == ("confirmed", [2, 5])

    async def released() -> bool:
        return (await market.available(lamp), await market.available(cup)) == (99, 98)

    await until("what was cancelled can be bought again", released)
    assert (await market.cancel(order_id, lines=[{"line": 1, "quantity": 1}, {"line": 2, "quantity": 2}])).is_success
    await market.ended(order_id, "cancelled")
    await market.gives_everything_back(order_id)  # the sum of all parts is the whole
    order = await market.look(order_id)
    assert order["state"] == "cancelled"
    assert order["payment"]["refunded"] == order["payment"]["captured"] == order["total"]
    assert steps(order).count("PaymentRefunded") == 4


async def test_a_refund_that_the_provider_declines_is_asked_for_until_it_succeeds(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order_id = (await market.buy((lamp, 1)))["order_id"]
    async with market.provider_that(refund_decline_rate=1):
        await market.cancel(order_id)
        await market.ended(order_id, "cancelled")
        await asyncio.sleep(0.5)
        assert (await market.look(order_id))["payment"]["refunded"] == "0.00"
    await market.gives_everything_back(order_id)
