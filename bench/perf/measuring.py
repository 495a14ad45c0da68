"""What benchmarks that send a steady load have in common: does a rate hold, what did it cost, tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from rich.table import Table

from bench.perf import figures, lag
from bench.perf.results import plain
from bench.perf.search import Search
from bench.perf.stage import Stage, Trial

MIB = 1_048_576
BUSY, LATE = 0.7, 10.0  # of a core, milliseconds: beyond, the client is to be mentioned
NEARLY = 0.7  # of the orders due in a window were confirmed in it
UNEVEN = 0.15  # seconds' worth of orders by which those under way may differ without being said to grow


@dataclass(frozen=True)
class Lengths:
    """Seconds, except trials."""

    warm: float = 5.0
    measured: float = 30.0
    trial_warm: float = 2.0
    trial: float = 8.0
    trials: int = 8


FULL, QUICK = Lengths(), Lengths(1.0, 3.0, 0.5, 2.0, 3)


def lengths(stage: Stage) -> Lengths:
    return QUICK if stage.quick else FULL


def bounded(trial: Trial) -> tuple[bool, str]:
    """Whether the lag stayed bounded in the window's second half, and why not."""
    begin, end = trial.window
    middle, rate = (begin + end) / 2, trial.load.rate
    if trial.sent.refused:
        return False, f"refused: {trial.sent.refused}"
    if others := len(trial.ended) - len(trial.confirmed()):
        return False, f"{others} ended without being confirmed"
    step = min(max(0.1, trial.load.rows / rate), (end - middle) / 4)  # a look per NDJSON request
    first = trial.start + ceil((middle - trial.start) / step) * step
    grew = figures.growth(trial.due(), trial.confirmed(), first, end, step)
    if grew > max(figures.BOUNDED * rate, UNEVEN * rate / (end - middle)):
        return False, f"orders under way grew by {grew:.0f}/s"
    return True, f"bounded ({grew:+.0f}/s)"


def _nearly(trial: Trial) -> bool:
    """Whether most of what was due in the window was confirmed in it."""
    begin, end = trial.window
    return figures.within(trial.confirmed(), begin, end) >= NEARLY * figures.within(trial.due(), begin, end)


async def highest(stage: Stage, first: float, **what: Any) -> tuple[float, list[dict[str, Any]]]:
    """The highest rate at which the lag stays bounded, and the trials that found it; 0 when none does."""
    long = lengths(stage)
    search = Search(first, trials=long.trials)
    trials: list[dict[str, Any]] = []
    while (rate := search.next) is not None:
        held = False
        for _ in range(2):  # a neighbour's noise only ever harms: what nearly held is tried again
            load = stage.load(rate=rate, seconds=long.trial_warm + long.trial, **what)
            trial = await stage.run(load, warm=long.trial_warm)
            held, why = bounded(trial)
            stage.say(f"  {rate:7.0f}/s for {long.trial:g} s: {why}; drained in {trial.drained:.1f} s")
            trials.append({"rate": round(rate, 1), "held": held, "why": why, "drained_s": round(trial.drained, 2)})
            if held or not _nearly(trial):
                break
        search.enter(rate, held)
    return search.held, trials


async def measured(stage: Stage, rate: float, *, tries: int = 1, **what: Any) -> tuple[Trial, bool]:
    """A run of full length, and whether its lag stayed bounded; if not, again a little slower, up to ``tries``."""
    long = lengths(stage)
    while True:
        trial = await stage.run(stage.load(rate=rate, seconds=long.warm + long.measured, **what), warm=long.warm)
        held, why = bounded(trial)
        stage.say(f"  {rate:7.0f}/s for {long.measured:g} s: {why}; drained in {trial.drained:.1f} s")
        tries -= 1
        if held or tries <= 0:
            return trial, held
        rate *= 0.93


def facts(trial: Trial) -> dict[str, Any]:
    """What a trial is kept as."""
    begin, end = trial.window
    orders = figures.within(trial.confirmed(), begin, end)
    spent = {name: seconds for name, seconds in trial.cpu.items() if not name.startswith("(")}
    sent = trial.sent
    return {
        "offered_per_s": round(trial.load.rate, 1),
        "confirmed_per_s": round(orders / (end - begin), 1),
        "measured_s": round(end - begin, 1),
        "orders": trial.load.orders,
        "post_to_confirmed_ms": figures.summary(trial.waits()),
        "histogram_ms": figures.histogram(trial.waits()),
        "cpu_ms_per_order": figures.per(spent, orders),
        "cpu_ms_per_order_all": figures.per({"all": sum(spent.values())}, orders)["all"],
        "cores_busy": round(sum(spent.values()) / (end - begin), 2),
        "pss_mib": {name: round(size / MIB, 1) for name, size in trial.memory.items()},
        "lag": {
            "open orders, most": figures.most_open(trial.due(), trial.confirmed(), begin, end),
            **lag.summary([one for one in trial.lag if begin <= one.at <= end]),
        },
        "drained_s": round(trial.drained, 2),
        "client": {
            "cpu_share": round(sent.cpu / sent.seconds, 3) if sent.seconds else 0.0,
            "late_p99_ms": round(sent.slip_p99 * 1000, 2),
            "most_waiting_for_a_connection": sent.most_waiting,
            "sent_again": sent.again,
            "refused": sent.refused,
            "watcher_cpu_s": round(trial.cpu.get("(watcher)", 0.0), 2),
        },
    }


def remarks(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What to know when reading the runs' figures."""
    found: list[str] = []
    for name, run in runs.items():
        client = run["client"]
        if not run["bounded"]:
            found.append(f"{name}: the lag was not bounded at {run['offered_per_s']:g}/s.")
        if client["cpu_share"] > BUSY:
            found.append(f"{name}: the client used {client['cpu_share']:.0%} of a core, and may be the limit.")
        if client["late_p99_ms"] > LATE:
            found.append(
                f"{name}: the client was late itself, by {client['late_p99_ms']:g} ms (p99): the machine is full."
            )
    return found


def cost_table(title: str, runs: dict[str, dict[str, Any]]) -> Table:
    """CPU per order and memory of each process, a pair of columns per run."""
    names = list(dict.fromkeys(name for run in runs.values() for name in run["pss_mib"]))
    columns = ["process", *(f"{name}: {what}" for name in runs for what in ("CPU ms/order", "PSS MiB"))]
    rows: list[Sequence[object]] = [
        [name, *(run[what].get(name, 0.0) for run in runs.values() for what in ("cpu_ms_per_order", "pss_mib"))]
        for name in names
    ]
    rows.append(
        ["all", *(one for run in runs.values()
                  for one in (run["cpu_ms_per_order_all"], round(sum(run["pss_mib"].values()), 1)))]
    )  # fmt: skip
    return plain(title, columns, rows)


def run_table(title: str, runs: dict[str, dict[str, Any]]) -> Table:
    """Rates, waits, lag and the client's own part, a line per run."""
    columns = ("", "offered/s", "confirmed/s", "p50 ms", "p90 ms", "p99 ms", "max ms", "open orders", "outbox",
               "unread", "cores busy", "client CPU", "client late ms")  # fmt: skip
    rows = [
        (
            name, run["offered_per_s"], run["confirmed_per_s"],
            *(run["post_to_confirmed_ms"][one] for one in ("p50", "p90", "p99", "max")),
            *run["lag"].values(), run["cores_busy"], f"{run['client']['cpu_share']:.0%}", run["client"]["late_p99_ms"],
        )
        for name, run in runs.items()
    ]  # fmt: skip
    return plain(title, columns, rows)
