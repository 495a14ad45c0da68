"""kill -9 of every service while orders flow: nothing lost, nothing doubled, nothing stuck."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter

import pytest

from bench.platform import SERVICES
from tests.flows.market import OPEN, Market, until

SEED = int(os.environ.get("ISTHMUS_TEST_SEED", "20"))
RATE = 9.0  # orders a second


async def flow(market: Market, orders: int, kills: int, rate: float = RATE) -> Counter[str]:
    """Place orders at ``rate`` while services are killed in turn and order stands still once; how they ended."""
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    lamp, cup = await market.lamps_and_cups(lamps=5 * orders, cups=5 * orders)
    scarce, _ = await market.lamps_and_cups(lamps=5)
    tokens = dice.choices(("tok_ok", "tok_declined", "tok_slow", "tok_lost", "tok_drop"), (85, 5, 4, 3, 3), k=orders)
    bodies = [
        market.order(
            (lamp, dice.randint(1, 3)), *([(cup, 1)] if dice.random() < 0.5 else []),
            *([(scarce, 1)] if dice.random() < 0.1 else []), token=token,
        )
        for token in tokens
    ]  # fmt: skip
    ids: dict[int, str] = {}
    started = time.monotonic()

    async def send(number: int) -> None:
        await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
        ids[number] = await market.place(bodies[number])
        if number % 10 == 0:  # a client that heard no answer sends it again
            assert await market.place(bodies[number]) == ids[number]

    async def disturb() -> None:
        stack = market.platform.stack
        names = [name for _ in range(kills) for name in dice.sample(SERVICES, len(SERVICES))]
        for number, name in enumerate([*names, "stand still"]):
            due = started + (number + 0.5) / (len(names) + 1) * orders / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if name == "stand still":
                await asyncio.to_thread(stack.wait_ready, "order")
                await asyncio.to_thread(stack.kill, "order", signal.SIGSTOP)
                await asyncio.sleep(5)
                await asyncio.to_thread(stack.kill, "order", signal.SIGCONT)
            else:
                await asyncio.to_thread(stack.kill, name)

    await asyncio.gather(disturb(), *(send(number) for number in range(orders)))

    async def all_settled() -> Counter[str] | None:
        rows = await market.rows(
            "order", "SELECT order_id::text, state FROM orders WHERE order_id = ANY($1)", list(ids.values())
        )
        assert len(rows) == len(set(ids.values())) == orders
        states = Counter(row["state"] for row in rows)
        return None if any(states[state] for state in OPEN) else states

    ended = await until("all orders are settled", all_settled, 30)
    outcomes = {row["order_id"]: row for row in await market.rows(
        "order", "SELECT order_id::text, state, reason FROM orders WHERE order_id = ANY($1)", list(ids.values())
    )}  # fmt: skip
    for number, token in enumerate(tokens):
        order = outcomes[ids[number]]
        if order["reason"] == "stock":
            assert (scarce, 1) in [(line["sku"], line["quantity"]) for line in bodies[number]["lines"]]
        elif token == "tok_declined":
            assert (order["state"], order["reason"]) == ("rejected", "payment_declined")
        else:
            assert (order["state"], order["reason"]) == ("confirmed", None), token
    await market.holds_all_invariants()
    return ended


@pytest.mark.long
async def test_orders_flow_while_every_service_is_killed_ten_times(market: Market):
    ended = await flow(market, orders=1500, kills=10)
    assert ended["confirmed"] > 1000
    assert not ended["expired"]
