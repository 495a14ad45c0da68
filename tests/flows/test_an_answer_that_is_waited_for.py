"""Who asks is told at once if possible, and pages do not shift while orders arrive."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.flows.market import OPEN, Market


@pytest.mark.parametrize(("token", "state"), [("tok_ok", "confirmed"), ("tok_declined", "rejected")])
async def test_the_outcome_comes_in_the_same_answer(market: Market, token: str, state: str):
    lamp, _ = await market.lamps_and_cups()
    order = market.order((lamp, 1), token=token)
    answer = await market.ask("order", "POST", "/orders", json=order, headers={"Prefer": "wait=15"})
    assert (answer.status_code, answer.json()["state"]) == (201, state)
    assert answer.headers["preference-applied"] == "wait=15"


async def test_who_waits_too_short_is_answered_in_time_and_may_ask_again(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order = market.order((lamp, 1), token="tok_slow")
    started = time.monotonic()
    answer = await market.ask("order", "POST", "/orders", json=order, headers={"Prefer": "respond-async, wait=0"})
    assert answer.json()["state"] in OPEN
    assert time.monotonic() - started < 0.7
    path = f"/orders/{answer.json()['order_id']}"
    assert (await market.ask("order", "GET", path, headers={"Prefer": "wait=15"})).json()["state"] == "confirmed"


async def test_pages_stay_while_orders_arrive(market: Market):
    lamp, _ = await market.lamps_and_cups()
    channel = market.name("fair")
    first = [await market.place(market.order((lamp, 1), channel=channel)) for _ in range(15)]
    arriving = asyncio.create_task(_arrive(market, lamp, channel))
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await market.ask("order", "GET", f"/orders?channel={channel}&limit=4{cursor}")).json()
        seen += [order["order_id"] for order in page["items"]]
        await asyncio.sleep(0.1)
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    arriving.cancel()
    assert len(seen) == len(set(seen))
    assert [order_id for order_id in seen if order_id in first] == first[::-1]
    assert seen == sorted(seen, reverse=True)


async def _arrive(market: Market, lamp: str, channel: str) -> None:
    while True:
        await market.place(market.order((lamp, 1), channel=channel))


async def test_orders_are_found_by_what_they_are_known_by(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order = await market.buy((lamp, 1))
    for query in (f"external_reference={order['external_reference']}", f"customer_id={order['customer_id']}"):
        for state, found in (("", 1), ("&state=confirmed", 1), ("&state=rejected", 0)):
            page = (await market.ask("order", "GET", f"/orders?{query}{state}")).json()
            assert len(page["items"]) == found
