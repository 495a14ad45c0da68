"""A second replica of every service joins, works, and goes while orders flow: partitions move, nothing doubles."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import AsyncExitStack

import httpx2
import pytest

from bench.faults.replicas import replica
from bench.platform import SERVICES
from tests.flows.market import OPEN, Market, until


async def applied(port: int) -> float:
    """How many messages the process behind ``port`` has applied."""
    async with httpx2.AsyncClient() as client:
        metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    return sum(float(number) for number in re.findall(r'isthmus_messages_total{.*outcome="applied"} (\S+)', metrics))


@pytest.mark.long
async def test_a_second_replica_joins_works_and_is_killed(market: Market):
    lamp, cup = await market.lamps_and_cups(lamps=2000, cups=2000)
    ids: list[str] = []

    async def buyers(number: int) -> None:
        for _ in range(number):
            ids.append(await market.place(market.order((lamp, 1), (cup, 2))))
            await asyncio.sleep(0.08)

    async with AsyncExitStack() as running:
        stack = market.platform.stack
        replicas = [await running.enter_async_context(replica(stack, service, wait=0)) for service in SERVICES]
        await buyers(100)  # while they join
        await asyncio.sleep(5)
        await buyers(50)  # while both work
        for second in replicas:
            assert await applied(second.port) > 0, f"{second.name} has nothing to do"
        # Some leave in good order, some do not.
        ends = [second.kill() if number % 2 else second.stop() for number, second in enumerate(replicas)]
        await asyncio.gather(buyers(100), *ends)  # while their partitions wait for the end of their sessions, and move

    async def all_settled() -> Counter[str] | None:
        rows = await market.rows("order", "SELECT state FROM orders WHERE order_id::text = ANY($1)", ids)
        states = Counter(row["state"] for row in rows)
        return None if any(states[state] for state in OPEN) else states

    assert await until("all orders are settled", all_settled, 60) == {"confirmed": 250}
    await market.holds_all_invariants()
