"""``make faults``: every fault with three seeds, resumed where it was stopped; or one of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.clock import clock
from bench.faults import results
from bench.faults.catalogue import FAULTS
from bench.faults.disks import NoDisksError
from bench.faults.results import Results, Row
from bench.faults.scene import Fault
from bench.faults.stage import DIRECTORY, Stage
from bench.source import version
from deploy.local.errors import StackError

SEEDS = (1, 2, 3)
console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 110  # a log has room


async def matrix(faults: Sequence[Fault], seeds: Sequence[int], *, small: bool, again: bool, path: Path) -> list[Row]:
    """Run what has not held yet; a row each, entered into the file as soon as it is known."""
    kept, rows = Results(path), list[Row]()
    size, source = "small" if small else "full", version()
    say = clock(console)
    for fault in faults:
        before = {} if again else {seed: kept.find(fault.name, seed, size, source) for seed in seeds}
        held = {seed: row for seed, row in before.items() if row is not None}
        for seed, row in held.items():
            console.print(f"[dim]{fault.name}, seed {seed}: held before, in {row.seconds:.0f} s[/]")
        left = [seed for seed in seeds if seed not in held]
        while left:
            async with Stage.open(DIRECTORY, say, proxied=fault.proxied, disk=fault.disk) as stage:
                while left:
                    seed = left.pop(0)
                    console.print(f"[bold]{fault.name}[/], seed {seed}")
                    row = await stage.run(fault, seed, small=small, version=source)
                    kept.enter(row)
                    rows.append(row)
                    say(_verdict(row))
                    if fault.fresh or not row.held:
                        break
        rows += held.values()
    return rows


def _verdict(row: Row) -> str:
    verdict = "held" if row.held else f"BROKEN: {row.broken[:3]}"
    return f"{verdict}: {row.orders:,} orders in {row.seconds} s, drained in {row.drain_seconds} s"


def main(
    fault: Annotated[list[str] | None, typer.Option(help="only this one; may be given several times")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="only this one; may be given several times")] = None,
    small: Annotated[bool, typer.Option(help="few orders: a minute a fault")] = False,
    again: Annotated[bool, typer.Option(help="run also what held before")] = False,
    out: Annotated[Path, typer.Option(help="where the rows are kept")] = results.RESULTS,
) -> None:
    """Run the fault matrix; exit 1 unless everything that is promised to be zero is zero."""
    names = fault or list(FAULTS)
    if unknown := set(names) - set(FAULTS):
        console.print(f"[red]There is no fault {', '.join(sorted(unknown))}.[/] Choose from: {', '.join(FAULTS)}.")
        sys.exit(2)
    chosen = [FAULTS[name] for name in names]
    try:
        rows = asyncio.run(matrix(chosen, seed or SEEDS, small=small, again=again or bool(fault), path=out))
    except (StackError, NoDisksError) as error:
        console.print(f"[red]{error}[/]\nRows that are done are kept in {out}; run it again to go on.", markup=True)
        sys.exit(1)
    console.print()
    held = results.show(rows, console)
    minutes = sum(row.seconds for row in rows) / 60
    console.print(f"\nRows are in {out}; to run them took {minutes:.0f} minutes.")
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    typer.run(main)
