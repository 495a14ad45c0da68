"""How long an order takes from POST to confirmed, at three rates: 50/s, 200/s, and half of the top rate.

The time of an order begins when it was due to be sent, and ends when a subscriber has read OrderConfirmed from Kafka.
"""

from __future__ import annotations

from typing import Any

from bench.perf.figures import quantile
from bench.perf.measuring import cost_table, facts, measured, remarks, run_table
from bench.perf.picture import lines
from bench.perf.results import Result, at_most, plain, read
from bench.perf.stage import Stage

UNKNOWN_TOP = 800.0  # orders a second, where no throughput was measured before
SHARES = [number / 200 for number in range(1, 200)] + [0.999]


async def run(stage: Stage, result: Result) -> None:
    top, known = _top(result)
    if not known:
        result.notes.append(f"No throughput was measured before: its top rate is taken for {top:g}/s.")
    await stage.prepare()
    runs: dict[str, dict[str, Any]] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, rate in (("50/s", 50.0), ("200/s", 200.0), ("half", top / 2)):
        trial, held = await measured(stage, rate)
        runs[name] = facts(trial) | {"bounded": held}
        ordered = sorted(trial.waits())
        curves[name] = [(quantile(ordered, share) * 1000, share * 100) for share in SHARES]
    result.notes += remarks(runs)
    waits = {name: run["post_to_confirmed_ms"] for name, run in runs.items()}
    result.goals += [
        at_most("p50 at 50/s", 20, waits["50/s"]["p50"], "ms"),
        at_most("p50 at 200/s", 30, waits["200/s"]["p50"], "ms"),
        at_most("p99 at 200/s", 100, waits["200/s"]["p99"], "ms"),
        at_most("p99 at half of the top rate", 250, waits["half"]["p99"], "ms"),
    ]
    result.facts |= {"top_per_s": top, "top_was_measured": known, "rates": runs}
    bins = [limit for limit in runs["50/s"]["histogram_ms"] if any(run["histogram_ms"][limit] for run in runs.values())]
    rows = [(f"<= {limit} ms", *(run["histogram_ms"][limit] for run in runs.values())) for limit in bins]
    result.tables += [
        run_table("Latency, POST to confirmed", runs), plain("Histogram", ("", *runs), rows), cost_table("Cost", runs),
    ]  # fmt: skip
    result.pictures["latency.svg"] = lines(
        "POST to confirmed: share of the orders that took at most so long", "ms", "% of orders", curves,
        logarithmic=True,
    )  # fmt: skip


def _top(result: Result) -> tuple[float, bool]:
    """The rate of single POSTs that the last throughput run found."""
    kept = read(result.folder, "throughput")
    return (kept["kinds"]["single"]["confirmed_per_s"], True) if kept else (UNKNOWN_TOP, False)
