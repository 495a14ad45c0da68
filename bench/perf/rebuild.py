"""How many events a second a view takes when it is built anew from the log, beside the running services.

Each as `python -m services.<name> rebuild <view>` does it, one after the other. Of a view of a few thousand events the
time is that of the start: such a one has no goal.
"""

from __future__ import annotations

import asyncio
import time

import asyncpg

from bench.perf.lag import sampled
from bench.perf.results import Result, at_least, plain
from bench.perf.stage import Stage
from bench.platform import database
from shared.contracts.services import all_parts
from shared.rebuild import Rebuilt, rebuild
from shared.views import View

ORDERS = 30_000  # each by a buyer of its own: he becomes a customer, and has a tier
GOAL, ENOUGH = 20_000, 10_000  # events a second, events
COUNT = "SELECT count(*) FROM {}"


async def run(stage: Stage, result: Result) -> None:
    await stage.prepare(customers=50)
    number = ORDERS // 100 if stage.quick else ORDERS
    stage.say(f"filling the log with {number:,} orders")
    await stage.fill(number, customers=())
    await _all_read(stage)
    done: list[tuple[str, Rebuilt, int]] = []
    for service, parts in (await asyncio.to_thread(all_parts)).items():  # it runs a loop of its own
        for view in parts.all_views:
            done.append((service, *await _build(stage, service, view, result)))
    for service, built, _ in done:
        if stage.quick or built.events >= ENOUGH:
            goal = at_least(f"{built.view} of {service}", GOAL, built.events / built.seconds, "events/s")
            result.goals.append(goal)
    rows = [
        (f"{service} {built.view}", built.events, rows, round(built.seconds, 2), round(built.events / built.seconds))
        for service, built, rows in done
    ]
    result.facts["views"] = [
        {"service": service, "view": built.view, "events": built.events, "rows": rows, "seconds": built.seconds}
        for service, built, rows in done
    ]
    result.tables.append(plain("Views built anew", ("view", "events", "rows", "seconds", "events/s"), rows))


async def _all_read(stage: Stage) -> None:
    """Every consumer has applied everything: what is built anew has a machine of its own."""
    until = time.monotonic() + 120
    async with sampled(stage.stack) as samples:
        while not samples or samples[-1].unread or samples[-1].outbox:
            if time.monotonic() > until:
                raise TimeoutError("two minutes after the last order events are still unread")
            await asyncio.sleep(0.5)


async def _build(stage: Stage, service: str, view: View, result: Result) -> tuple[Rebuilt, int]:
    """What the rebuild did, and how many rows came of it; a row that is lost or new is a broken promise."""
    async with database(stage.stack, service) as connection:
        before = await _rows(connection, view)
        url, kafka = stage.stack.database_url(service), stage.stack.bootstrap_servers
        built = await rebuild(view, url, kafka, lambda line: stage.say(f"  {view.name}: {line}"))
        after = await _rows(connection, view)
    stage.say(f"  {view.name} of {service}: {built.events:,} events in {built.seconds:.1f} s")
    if after != before or built.left_out:
        result.broken.append(f"{view.name} of {service} had {before} rows, now {after}; left out: {built.left_out}")
    return built, after


async def _rows(connection: asyncpg.Connection[asyncpg.Record], view: View) -> int:
    return sum([await connection.fetchval(COUNT.format(table)) for table in view.tables])
