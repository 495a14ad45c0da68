"""Many want what only few can have."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.flows.market import Market


async def test_of_two_hundred_parallel_buyers_of_ten_lamps_exactly_ten_get_one(market: Market):
    lamp, _ = await market.lamps_and_cups(lamps=10)
    orders = [market.order((lamp, 1)) for _ in range(200)]
    ids = await asyncio.gather(*(market.place(order) for order in orders))
    outcomes = await asyncio.gather(*(market.outcome(order_id, seconds=40) for order_id in ids))
    assert Counter((one["state"], one["reason"]) for one in outcomes) == {
        ("confirmed", None): 10,
        ("rejected", "stock"): 190,
    }
    (level,) = (await market.ask("inventory", "GET", f"/stock/{lamp}")).json()["levels"]
    assert (level["on_hand"], level["reserved"], level["available"]) == (10, 10, 0)
    held = await market.rows("inventory", "SELECT sum(quantity) AS units FROM hold_lines WHERE sku = $1", lamp)
    assert held[0]["units"] == 10


async def test_of_fifty_parallel_buyers_three_get_the_coupon_that_three_may_use(market: Market):
    lamp, _ = await market.lamps_and_cups()
    code = market.name("first-three")
    await market.platform.ask("pricing", "PUT", f"/coupons/{code}", json={"percent": "50", "limit_total": 3})
    ids = await asyncio.gather(*(market.place(market.order((lamp, 1), coupon=code)) for _ in range(50)))
    outcomes = await asyncio.gather(*(market.outcome(order_id) for order_id in ids))
    assert Counter((one["state"], one["reason"], one["total"]) for one in outcomes if one["state"] == "confirmed") == {
        ("confirmed", None, "12.45"): 3
    }
    assert Counter(one["reason"] for one in outcomes if one["state"] != "confirmed") == {"coupon_used_up": 47}
    await asyncio.gather(
        *(market.gives_everything_back(one["order_id"]) for one in outcomes if one["state"] == "rejected")
    )
    assert await market.available(lamp) == 97


async def test_the_same_points_cannot_be_redeemed_by_ten_parallel_orders(market: Market):
    lamp, _ = await market.lamps_and_cups()
    member = await market.customer(points=250)
    asked = [market.order((lamp, 1), customer_id=member, points=100) for _ in range(10)]
    ids = await asyncio.gather(*(market.place(order) for order in asked))
    outcomes = await asyncio.gather(*(market.outcome(order_id) for order_id in ids))
    assert Counter((one["state"], one["reason"]) for one in outcomes) == {
        ("confirmed", None): 2,
        ("rejected", "points"): 8,
    }
    points = (await market.ask("customer", "GET", f"/customers/{member}")).json()["points"]
    assert points == {"balance": 50, "held": 200}
