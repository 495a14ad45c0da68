"""The highest rate of orders at which the lag stays bounded, from POST to confirmed, with all five services consuming.

Orders have three lines out of 1,000 SKUs and come from 1,000 known customers. Three kinds: single POSTs and NDJSON,
both paid by the channel; and single POSTs paid by card, with the whole conversation with the payment provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.perf.measuring import cost_table, facts, highest, measured, remarks, run_table
from bench.perf.orders import ROWS
from bench.perf.picture import lines
from bench.perf.results import Result, at_least
from bench.perf.stage import Stage

KINDS: Mapping[str, tuple[float, float, Mapping[str, Any]]] = {  # goal, first rate to try, what the load is like
    "single": (1500, 200, {}),
    "ndjson": (2500, 200, {"rows": ROWS}),
    "provider": (500, 50, {"card": True}),
}
TITLES = {"single": "single POSTs", "ndjson": "NDJSON", "provider": "single POSTs with the payment provider"}


async def run(stage: Stage, result: Result) -> None:
    await stage.prepare()
    runs = await rates(stage, KINDS)
    for kind, run in runs.items():
        result.goals.append(at_least(TITLES[kind], KINDS[kind][0], run["confirmed_per_s"], "orders/s"))
    result.notes += remarks(runs)
    result.facts["kinds"] = runs
    result.tables += [run_table("Throughput", runs), cost_table("Cost", runs)]
    result.pictures["throughput.svg"] = lines(
        "Trials: orders offered a second, and how long the last of them took to be confirmed",
        "orders/s", "seconds until drained",
        {TITLES[kind]: [(t["rate"], t["drained_s"]) for t in sorted(run["trials"], key=_rate)]
         for kind, run in runs.items()},
    )  # fmt: skip


async def rates(stage: Stage, kinds: Mapping[str, tuple[float, float, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """By kind, a run at the highest rate that holds, as facts."""
    runs: dict[str, dict[str, Any]] = {}
    for kind, (_, first, what) in kinds.items():
        stage.say(TITLES[kind])
        rate, trials = await highest(stage, first, **what)
        trial, held = await measured(stage, rate or first / 4, tries=3, **what)
        runs[kind] = facts(trial) | {"bounded": held, "trials": trials}
    return runs


def _rate(trial: Mapping[str, Any]) -> float:
    return trial["rate"]
