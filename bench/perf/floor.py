"""The floor: what an order needs in Kafka and Postgres, moved by bare aiokafka and asyncpg without any logic.

Five processes, one per service, move the frozen list (frozen.py says what is in it, moving.py what is not) for many
orders, as fast as they can. The platform's own throughput is measured in the same run, before, on the same Kafka and
Postgres; its services are stopped for the floor. The ratio of the two is the gate.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from bench import machine
from bench.perf import frozen, moving
from bench.perf.child import child
from bench.perf.figures import per
from bench.perf.measuring import lengths, remarks
from bench.perf.moving import PARTITIONS, Part, floor_topic
from bench.perf.results import Result, at_least, plain
from bench.perf.stage import Stage
from bench.perf.throughput import KINDS, TITLES, rates
from bench.platform import SERVICES
from shared.kafka import create_topics
from shared.messages import Topic

GATE = 0.5  # of the floor
GATED = ("single", "ndjson")
FIRST = 5_000  # orders, to warm up and to know how many make a measurement


async def run(stage: Stage, result: Result) -> None:
    await stage.prepare()
    platform = await rates(stage, {kind: KINDS[kind] for kind in GATED})
    stage.say("the floor")
    for name in SERVICES:
        await asyncio.to_thread(stage.stack.stop, name)
    floor = await _floor(stage, frozen.load())
    result.notes += remarks(platform)
    result.facts |= {"floor": floor, "platform": platform}
    for kind, found in platform.items():
        ratio = found["confirmed_per_s"] / floor["orders_per_s"]
        result.goals.append(at_least(f"{TITLES[kind]}, of the floor", GATE, ratio, "ratio"))
    rows = [(TITLES[kind], one["confirmed_per_s"], one["cpu_ms_per_order_all"]) for kind, one in platform.items()]
    rows.append(("the floor", floor["orders_per_s"], sum(floor["cpu_ms_per_order"].values())))
    result.tables.append(plain("Floor", ("", "orders/s", "CPU ms/order"), rows))


async def _floor(stage: Stage, needs: frozen.Needs) -> dict[str, Any]:
    """Move the list, first to warm up, then for as long as a measurement lasts."""
    servers = stage.stack.bootstrap_servers
    records = {name: one.records for topics in needs.writes.values() for name, one in topics.items()}
    topics = [Topic[Any](floor_topic(name), owner="floor", key="", union=(), partitions=PARTITIONS, public=False,
                         about="What the floor moves.") for name in records]  # fmt: skip
    await create_topics(servers, topics)
    async with contextlib.AsyncExitStack() as opened:
        movers = {
            name: await opened.enter_async_context(
                child(
                    moving.main,
                    Part(servers, stage.stack.database_url(name), needs.writes.get(name, {}), needs.reads[name],
                         needs.rows[name], records),
                )
            )
            for name in SERVICES
        }  # fmt: skip
        await asyncio.gather(*(mover.answer() for mover in movers.values()))

        async def move(orders: int) -> tuple[float, dict[str, float]]:
            await asyncio.gather(*(mover.ask(orders) for mover in movers.values()))
            before, began = await asyncio.to_thread(machine.cpu, stage.stack), time.monotonic()
            moved = await asyncio.gather(*(mover.ask("go") for mover in movers.values()))
            took = time.monotonic() - began
            spent = machine.used(before, await asyncio.to_thread(machine.cpu, stage.stack))
            outside = {name: spent[name] for name in ("kafka", "postgres")}
            return took, outside | {name: cpu for name, (_, cpu) in zip(movers, moved, strict=True)}

        first = FIRST // 2 if stage.quick else FIRST
        took, _ = await move(first)
        orders = max(first, round(first / took * lengths(stage).measured))
        took, spent = await move(orders)
    stage.say(f"  {orders / took:7.0f}/s for {took:.0f} s")
    return {"orders_per_s": round(orders / took, 1), "orders": orders, "seconds": round(took, 1),
            "cpu_ms_per_order": per(spent, orders)}  # fmt: skip
