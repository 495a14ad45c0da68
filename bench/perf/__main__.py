"""``make bench``: every benchmark, or those named; results in bench/results, and a table of goals and figures."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import invariants, machine
from bench.clock import clock
from bench.perf import flash, floor, growth, latency, memory, rebuild, results, sync, throughput
from bench.perf.child import ChildError
from bench.perf.results import Result
from bench.perf.stage import Stage
from bench.platform import PlatformError
from bench.source import version
from deploy.local.errors import StackError

Benchmark = Callable[[Stage, Result], Awaitable[None]]
BENCHMARKS: Mapping[str, Benchmark] = {
    "throughput": throughput.run,
    "floor": floor.run,
    "latency": latency.run,
    "memory": memory.run,
    "flash": flash.run,
    "sync": sync.run,
    "rebuild": rebuild.run,
    "growth": growth.run,
}
FAILURES = (StackError, PlatformError, ChildError, OSError, ValueError, TimeoutError, ExceptionGroup)
console = Console(highlight=False)
if not console.is_terminal:
    console.width = 150  # a log has room


async def measure(name: str, seed: int, folder: Path, *, quick: bool, million: bool) -> Result:
    """Run one benchmark on a stack of its own, hold the stack to its invariants, keep and show what was found."""
    result = Result(name, seed, machine.describe(), version(), quick, folder)
    say, began = clock(console), time.monotonic()
    async with Stage.open(seed, say, quick=quick, million=million) as stage:
        await BENCHMARKS[name](stage, result)
        findings = await stage.findings()
    result.broken += stage.untold
    result.broken += [f"{one.id}: {what}" for one in findings for what in one.broken[:5]]
    result.facts["invariants"] = {one.id: "held" if one.held else f"broken {len(one.broken)} times" for one in findings}
    result.facts["seconds"] = round(time.monotonic() - began, 1)
    path = result.write()
    invariants.show(findings, console)
    result.show(console)
    console.print(f"Kept in {path}.\n")
    return result


def main(
    names: Annotated[list[str] | None, typer.Argument(help="only these")] = None,
    quick: Annotated[bool, typer.Option(help="a few seconds each: to try it out, not to measure")] = False,
    million: Annotated[bool, typer.Option(help="growth: also with a million orders, which takes hours")] = False,
    seed: Annotated[int, typer.Option(help="of the orders")] = 1,
    out: Annotated[Path | None, typer.Option(help="where results are kept")] = None,
) -> None:
    """Run the benchmarks. Fails when an invariant is broken or one could not run, not when an aim is missed."""
    chosen = names or list(BENCHMARKS)
    if unknown := set(chosen) - set(BENCHMARKS):
        console.print(f"[red]There is no benchmark {', '.join(sorted(unknown))}.[/] Choose: {', '.join(BENCHMARKS)}.")
        sys.exit(2)
    folder = out or (results.TRIED_OUT if quick else results.RESULTS)
    done: list[Result] = []
    failed: dict[str, str] = {}
    about = machine.describe()
    console.print(f"{about['processor']}, {about['cores']} cores, {about['memory_mib']:,} MiB; seed {seed}\n")
    for name in chosen:
        console.print(f"[bold]{name}[/]")
        try:
            done.append(asyncio.run(measure(name, seed, folder, quick=quick, million=million)))
        except FAILURES as error:
            failed[name] = f"{type(error).__name__}: {error}"
            console.print(f"  did not run: {failed[name]}\n", style="red", markup=False)
    if len(chosen) > 1:
        console.print(results.goals_table(done, failed))
    sys.exit(results.exit_code(done, failed))


if __name__ == "__main__":
    typer.run(main)
