"""A second replica of every service joins, works, and goes while orders flow: partitions move, nothing doubles."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections import Counter

import httpx2
import pytest

from bench.platform import SERVICES
from deploy.local.supervisor import ROOT
from tests.flows.market import OPEN, Market, until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def second(market: Market, service: str, port: int) -> Process:
    """Another process of ``service``, a member of the same groups under a name of its own."""
    env = {**os.environ, **market.platform.stack.env(service)}
    env |= {"ISTHMUS_HTTP_PORT": str(port), "ISTHMUS_REPLICA": f"{service}-1"}
    command = [sys.executable, "-m", f"services.{service}"]
    return await asyncio.create_subprocess_exec(*command, env=env, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL)


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

    ports = {service: free_port() for service in SERVICES}
    replicas = [await second(market, service, port) for service, port in ports.items()]
    try:
        await buyers(100)  # while they join
        await asyncio.sleep(5)
        await buyers(50)  # while both work
        for service, port in ports.items():
            assert await applied(port) > 0, f"the second {service} has nothing to do"
        for number, replica in enumerate(replicas):  # some leave in good order, some do not
            replica.send_signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
        await buyers(100)  # while their partitions wait for the end of their sessions, and move back
    finally:
        for replica in replicas:
            if replica.returncode is None:
                replica.kill()
            await replica.wait()

    async def all_settled() -> Counter[str] | None:
        rows = await market.rows("order", "SELECT state FROM orders WHERE order_id::text = ANY($1)", ids)
        states = Counter(row["state"] for row in rows)
        return None if any(states[state] for state in OPEN) else states

    assert await until("all orders are settled", all_settled, 60) == {"confirmed": 250}
    await market.holds_all_invariants()
