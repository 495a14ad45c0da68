"""Whether an order costs more the more orders there are: CPU per order with 10 thousand and 100 thousand before it.

With ``--million`` also with a million, which takes a long time to fill.
"""

from __future__ import annotations

import asyncio
from typing import Any

from bench.perf.measuring import cost_table, facts, measured, remarks, run_table
from bench.perf.picture import lines
from bench.perf.results import Result, at_most, read
from bench.perf.stage import Stage
from bench.platform import database

LEVELS, MILLION = (10_000, 100_000), 1_000_000
QUICK = (200, 1_000)
GOAL = 1.2  # times what it cost at first
SHARE, UNKNOWN = 0.6, 150.0  # of the top rate, or orders a second where none was measured: idle time weighs little


async def run(stage: Stage, result: Result) -> None:
    """The levels that ``stage`` asks for."""
    await stage.prepare()
    levels = QUICK if stage.quick else (*LEVELS, MILLION) if stage.million else LEVELS
    kept = read(result.folder, "throughput")
    rate: float = 50.0 if stage.quick else SHARE * kept["kinds"]["single"]["confirmed_per_s"] if kept else UNKNOWN
    runs: dict[str, dict[str, Any]] = {}
    await measured(stage, rate)  # caches are warm, and plans are made
    for level in levels:
        await _fill(stage, level)
        trial, held = await measured(stage, rate)
        runs[f"{level:,}"] = facts(trial) | {"bounded": held}
    costs = {level: one["cpu_ms_per_order_all"] for level, one in zip(levels, runs.values(), strict=True)}
    for level in levels[1:]:
        ratio = costs[level] / costs[levels[0]]
        result.goals.append(at_most(f"CPU per order, {level:,} to {levels[0]:,} before it", GOAL, ratio, "ratio"))
    result.notes += remarks(runs)
    result.facts |= {"levels": runs, "cpu_ms_per_order": {str(level): cost for level, cost in costs.items()}}
    result.tables += [run_table("Growth", runs), cost_table("Cost, by the number of orders before", runs)]
    result.pictures["growth.svg"] = lines(
        "CPU per order, by the number of orders before it", "orders", "ms per order",
        {"everything": list(costs.items())}, logarithmic=True,
    )  # fmt: skip


async def _fill(stage: Stage, level: int) -> None:
    """Place orders until there are so many, and wait until Postgres has tidied up after itself."""
    async with database(stage.stack, "order") as connection:
        there = await connection.fetchval("SELECT count(*) FROM orders")
    stage.say(f"filling up to {level:,} orders")
    await stage.fill(level - there)
    await asyncio.sleep(1 if stage.quick else 10)
