"""Whoever says no, the order ends with that reason, and whatever it had been given goes back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.flows.market import Market, steps

Change = dict[str, Any]


async def too_many(market: Market) -> tuple[Change, str]:
    return {"lines": 11}, "stock"


async def dearer_than_shown(market: Market) -> tuple[Change, str]:
    return {"expected_total": "24.89"}, "price_differs"


async def used_up_coupon(market: Market) -> tuple[Change, str]:
    code = market.name("once")
    await market.platform.ask("pricing", "PUT", f"/coupons/{code}", json={"percent": "10", "limit_total": 1})
    lamp, _ = await market.lamps_and_cups()
    assert (await market.buy((lamp, 1), coupon=code))["state"] == "confirmed"
    return {"coupon": code}, "coupon_used_up"


async def unknown_coupon(market: Market) -> tuple[Change, str]:
    return {"coupon": market.name("never-heard-of")}, "coupon_unknown"


async def too_few_points(market: Market) -> tuple[Change, str]:
    return {"customer_id": await market.customer(points=99), "points": 100}, "points"


async def no_such_customer(market: Market) -> tuple[Change, str]:
    return {"customer_id": str(uuid4())}, "unknown_customer"


async def declined_at_once(market: Market) -> tuple[Change, str]:
    return {"payment": {"method": "card", "token": "tok_insufficient_funds"}}, "payment_declined"


async def declined_later(market: Market) -> tuple[Change, str]:
    return {"payment": {"method": "card", "token": "tok_slow_declined"}}, "payment_declined"


async def not_a_token(market: Market) -> tuple[Change, str]:
    return {"payment": {"method": "card", "token": "no such token"}}, "payment_declined"


async def no_price_in_that_currency(market: Market) -> tuple[Change, str]:
    return {"currency": "JPY"}, "no_price"


REASONS = (
    too_many, dearer_than_shown, used_up_coupon, unknown_coupon, too_few_points, no_such_customer,
    declined_at_once, declined_later, not_a_token, no_price_in_that_currency,
)  # fmt: skip


@pytest.mark.parametrize("reason", REASONS, ids=lambda one: one.__name__)
async def test_a_refusal_ends_the_order_and_gives_everything_back(
    market: Market, reason: Callable[[Market], Awaitable[tuple[Change, str]]]
):
    lamp, cup = await market.lamps_and_cups(lamps=10)
    member, welcome = await market.customer(points=50), market.name("welcome")
    await market.platform.ask("pricing", "PUT", f"/coupons/{welcome}", json={"percent": "10"})
    change, expected = await reason(market)
    lamps = change.pop("lines", 1)
    more: Change = {
        "customer_id": member,
        "points": 50,
        "coupon": welcome,
    } | change  # so there is something to give back
    if "buyer" in change:
        del more["customer_id"]
    order = await market.buy((lamp, lamps), (cup, 1), **more)
    assert (order["state"], order["reason"]) == ("rejected", expected)
    assert steps(order)[-1] == "OrderRejected"
    assert steps(order).count("OrderRejected") == 1
    await market.gives_everything_back(order["order_id"])
    assert (await market.available(lamp), await market.available(cup)) == (10, 100)
    points = (await market.ask("customer", "GET", f"/customers/{member}")).json()["points"]
    assert points == {"balance": 50, "held": 0}
    coupon = (await market.ask("pricing", "GET", f"/coupons/{welcome}")).json()
    assert (coupon["used"], [use["state"] for use in coupon["uses"]]) in ((0, []), (0, ["released"]))


async def test_what_one_order_gave_back_the_next_one_gets(market: Market):
    lamp, _ = await market.lamps_and_cups(lamps=1)
    code, member = market.name("single"), await market.customer(points=50)
    await market.platform.ask("pricing", "PUT", f"/coupons/{code}", json={"percent": "10", "limit_total": 1})
    asked: Change = {"customer_id": member, "points": 50, "coupon": code}
    declined = await market.buy((lamp, 1), token="tok_declined", **asked)
    await market.gives_everything_back(declined["order_id"])
    order = await market.buy((lamp, 1), expected_total="21.91", **asked)  # 24.90 less 10 %, less 50 points
    assert (order["state"], order["total"]) == ("confirmed", "21.91")
    assert await market.available(lamp) == 0
