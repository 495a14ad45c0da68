"""Rows of the matrix: kept in a file after each run, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from bench.finding import Finding

RESULTS = Path("bench/results/faults.json")
COUNTED = ("lost", "doubled", "stuck", "oversold", "unbalanced", "other")  # all promised to be zero


@dataclass
class Row:
    """One fault with one seed. Counts are violations found; seconds are wall time."""

    fault: str
    seed: int
    size: str
    version: str  # of the source that was run
    orders: int = 0
    lost: int = 0
    doubled: int = 0
    stuck: int = 0
    oversold: int = 0
    unbalanced: int = 0
    other: int = 0
    drain_seconds: float = 0.0  # from healing until nothing was under way
    seconds: float = 0.0
    samples: int = 0  # of the local invariants, while the fault was on
    facts: dict[str, Any] = field(default_factory=dict[str, Any])  # what was done, and what was seen
    broken: list[str] = field(default_factory=list[str])

    @property
    def held(self) -> bool:
        return not self.broken and not any(getattr(self, name) for name in COUNTED)

    def count(self, findings: Iterable[Finding], when: str) -> None:
        """Enter what breaks an invariant under the column that it belongs to."""
        for finding in findings:
            for one in finding.broken:
                column = _column(finding.id, one)
                setattr(self, column, getattr(self, column) + 1)
            self.broken += [f"{when}, {finding.id}: {one}" for one in finding.broken[:5]]

    def fail(self, column: str, what: Sequence[str] | str) -> None:
        found = [what] if isinstance(what, str) else list(what)
        setattr(self, column, getattr(self, column) + len(found))
        self.broken += found[:5]


def _column(invariant: str, broken: str) -> str:
    match invariant:
        case "I1":
            return "oversold"
        case "I2" | "I3":
            return "unbalanced"
        case "I4":
            return "doubled" if broken.endswith(" orders") else "lost"
        case "I5":
            return "stuck"
        case "I6":
            return "lost"
        case "I8":
            return "doubled"
        case _:
            return "other"


class Results:
    """The rows of one file."""

    def __init__(self, path: Path = RESULTS):
        self._path = path
        content: Mapping[str, Any] = orjson.loads(path.read_bytes()) if path.exists() else {"rows": []}
        self.rows = [Row(**row) for row in content["rows"]]

    def find(self, fault: str, seed: int, size: str, version: str) -> Row | None:
        """The row of a run of this very source, if it held."""
        wanted = (fault, seed, size, version)
        return next((row for row in self.rows if _key(row) == wanted and row.held), None)

    def enter(self, row: Row) -> None:
        self.rows = [one for one in self.rows if _key(one)[:3] != _key(row)[:3]] + [row]
        self.rows.sort(key=lambda one: (one.size, one.fault, one.seed))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        machine = {"processor": platform.processor() or platform.machine(), "system": platform.platform()}
        content = {"machine": machine, "rows": [asdict(one) for one in self.rows]}
        self._path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2, default=str))


def _key(row: Row) -> tuple[str, int, str, str]:
    return row.fault, row.seed, row.size, row.version


def show(rows: Sequence[Row], console: Console) -> bool:
    """Print the matrix, a line per fault; returns whether every row held."""
    table = Table(title="Fault matrix", title_justify="left", show_edge=False)
    table.add_column("fault")
    for column in ("runs", "orders", *COUNTED, "drain s"):
        table.add_column(column, justify="right")
    table.add_column("")
    for fault in dict.fromkeys(row.fault for row in rows):
        runs = [row for row in rows if row.fault == fault]
        counts = [sum(getattr(row, name) for row in runs) for name in COUNTED]
        table.add_row(
            fault, str(len(runs)), f"{sum(row.orders for row in runs):,}", *(str(one) for one in counts),
            f"{max(row.drain_seconds for row in runs):.1f}",
            "[green]held[/]" if all(row.held for row in runs) else "[red bold]BROKEN[/]",
        )  # fmt: skip
    console.print(table)
    for row in rows:
        for line in row.broken[:10]:
            console.print(f"  {row.fault}, seed {row.seed}: {line}", style="red", highlight=False, markup=False)
    return all(row.held for row in rows)
