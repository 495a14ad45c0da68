"""A crowd sends several times what can be taken: the rest is refused in time, nothing taken is lost, memory is flat."""

from __future__ import annotations

import asyncio
import math
import re
import statistics
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson
import pytest

from bench.machine import pss
from tests.flows.market import OPEN, Market, until

# At most so many orders wait at once, and the gate is looked at about once a second: some 50 a second are taken.
LIMITS = {"ISTHMUS_MAX_OPEN_ORDERS": "30", "ISTHMUS_MAX_IN_FLIGHT": "20"}
OFFERED = 200  # orders a second
SLOWEST = 6.0  # seconds, of the answers to 99 of 100 orders that were taken, crowd and shop on the same machine
GROWTH = 15.0  # MiB of the order process, from the first to the last third: less than what its allocators round up to


@dataclass
class Crowd:
    """What a crowd was told, and what it saw meanwhile."""

    taken: dict[str, str] = field(default_factory=dict[str, str])  # order ids by reference
    seconds: list[float] = field(default_factory=list[float])  # that answers to those took
    refusals: list[float] = field(default_factory=list[float])  # seconds that refusals took
    others: list[str] = field(default_factory=list[str])
    memory: list[float] = field(default_factory=list[float])  # MiB

    def hear(self, order: dict[str, Any], answer: httpx2.Response, seconds: float) -> None:
        if answer.status_code == 201:
            self.taken[order["external_reference"]] = answer.json()["order_id"]
            self.seconds.append(seconds)
        elif answer.status_code == 503 and answer.json()["type"] == "urn:isthmus:problem:overloaded":
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            self.refusals.append(seconds)
        else:
            self.others.append(f"{answer.status_code} {answer.text[:200]}")


async def ask(
    url: httpx2.URL, headers: Mapping[str, str], method: str, path: str, body: bytes = b""
) -> httpx2.Response:
    """One request of a stranger, on a connection of its own: a client's pool of a thousand would measure itself."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {url.host}", "Connection: close", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head, _, content = (await asyncio.wait_for(reader.read(-1), 60)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status, *told = head.decode().split("\r\n")
    return httpx2.Response(int(status.split()[1]), headers=dict(line.split(": ", 1) for line in told), content=content)


async def send(market: Market, sku: str, seconds: float) -> Crowd:
    """An open loop: whatever the answers are, the next orders come."""
    crowd = Crowd()
    url = httpx2.URL(market.platform.stack.url("order"))
    headers = {**market.platform.headers(), "Content-Type": "application/json"}

    async def buy() -> None:
        order, begun = market.order((sku, 1)), time.perf_counter()
        try:
            answer = await ask(url, headers, "POST", "/orders", orjson.dumps(order))
        except (OSError, TimeoutError, ValueError) as error:
            crowd.others.append(repr(error))
        else:
            crowd.hear(order, answer, time.perf_counter() - begun)

    async def watch() -> None:
        while True:
            crowd.memory.append(pss(market.platform.stack.pid("order") or 0) / 1_048_576)
            if not crowd.memory[-1]:
                crowd.others.append("the order process is gone")
            alive = await ask(url, {}, "GET", "/health/live")
            if not alive.is_success:
                crowd.others.append(f"health: {alive.status_code}")
            await asyncio.sleep(0.25)

    watching = asyncio.create_task(watch())
    async with asyncio.TaskGroup() as people:
        begun = time.perf_counter()
        for number in range(int(OFFERED * seconds)):
            people.create_task(buy())
            await asyncio.sleep(max(0.0, begun + number / OFFERED - time.perf_counter()))
    watching.cancel()
    return crowd


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """The means of the first and of the last third."""
    third = len(values) // 3
    return statistics.mean(values[:third]), statistics.mean(values[-third:])


async def gate(market: Market) -> dict[str, float]:
    """What the gate shows of itself, and how many it has refused (`shed`)."""
    metrics = (await market.ask("order", "GET", "/metrics")).text
    shown = re.findall(r'^isthmus_gate_(\w+){work="orders"} (\S+)', metrics, re.MULTILINE)
    shed = re.findall(r"^isthmus_requests_shed_total{.*} (\S+)", metrics, re.MULTILINE)
    return {name: float(number) for name, number in shown} | {"shed": sum(map(float, shed))}


@asynccontextmanager
async def small_shop(market: Market) -> AsyncGenerator[None]:
    await market.start(["order"], order=LIMITS)
    try:
        yield
    finally:
        await market.start(["order"])


async def judge(market: Market, crowd: Crowd, sku: str) -> None:
    assert not crowd.others, crowd.others[:5]
    offered = len(crowd.taken) + len(crowd.refusals)
    assert len(crowd.taken) >= 30
    assert offered >= 2 * len(crowd.taken), "no crowd"
    worst = sorted(crowd.seconds)[math.ceil(0.99 * len(crowd.seconds)) - 1]
    assert worst < SLOWEST, f"one in a hundred took {worst:.1f} s"
    before, after = thirds(crowd.memory)
    assert after - before < GROWTH, f"from {before:.0f} to {after:.0f} MiB"

    # It recovers by itself, soon after what was taken is done.
    async def opened() -> bool:
        return (await gate(market))["open"] == 1

    await until("the gate is open", opened, 20)
    begun = time.perf_counter()
    answer = await market.ask("order", "POST", "/orders", json=market.order((sku, 1)))
    assert (answer.status_code, time.perf_counter() - begun < 2) == (201, True)

    ids = [*crowd.taken.values(), answer.json()["order_id"]]
    market.acknowledged += [("web", reference, order_id) for reference, order_id in crowd.taken.items()]

    async def all_have_an_outcome() -> bool:
        rows = await market.rows("order", "SELECT state FROM orders WHERE order_id::text = ANY($1)", ids)
        return len(rows) == len(ids) and not any(row["state"] in OPEN for row in rows)

    await until("all that were taken have an outcome", all_have_an_outcome, 30)
    expired = "SELECT count(*) AS orders FROM orders WHERE order_id::text = ANY($1) AND state <> 'confirmed'"
    assert (await market.rows("order", expired, ids))[0]["orders"] == 0
    await market.holds_all_invariants()


async def test_a_crowd_is_refused_in_part_and_served_in_part(market: Market):
    lamp, _ = await market.lamps_and_cups(lamps=5000)
    async with small_shop(market):
        await send(market, lamp, 2)  # whatever is loaded or cached once
        shed = (await gate(market))["shed"]
        crowd = await send(market, lamp, 10)
        assert (await gate(market))["shed"] - shed == len(crowd.refusals)
        await judge(market, crowd, lamp)


@pytest.mark.long
async def test_a_crowd_that_stays_for_minutes(market: Market):
    lamp, _ = await market.lamps_and_cups(lamps=20_000)
    async with small_shop(market):
        await send(market, lamp, 5)
        await judge(market, await send(market, lamp, 120), lamp)
