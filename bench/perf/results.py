"""What a benchmark found: held against its goals, kept in bench/results/<name>.json, shown as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

RESULTS = Path("bench/results")
TRIED_OUT = Path(".local/quick-results")  # of quick runs: figures for nobody


@dataclass(frozen=True)
class Goal:
    """``goal`` is what is aimed at, as in ``>= 1500``; ``figure`` is what was measured, in the same unit."""

    name: str
    goal: str
    figure: float
    unit: str
    holds: bool


def at_least(name: str, limit: float, figure: float, unit: str) -> Goal:
    return Goal(name, f">= {limit:g}", round(figure, 3), unit, figure >= limit)


def at_most(name: str, limit: float, figure: float, unit: str) -> Goal:
    return Goal(name, f"<= {limit:g}", round(figure, 3), unit, figure <= limit)


def exactly(name: str, wanted: int, figure: int, unit: str) -> Goal:
    return Goal(name, f"= {wanted}", figure, unit, figure == wanted)


@dataclass
class Result:
    """``facts`` are kept as they are; ``broken`` are invariants, and promises to the client, that did not hold."""

    name: str
    seed: int
    machine: Mapping[str, Any]
    version: str  # of the source that was measured
    quick: bool
    folder: Path = RESULTS  # where it is kept, and what other benchmarks have found
    goals: list[Goal] = field(default_factory=list[Goal])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    broken: list[str] = field(default_factory=list[str])
    tables: list[Table] = field(default_factory=list[Table])  # for people
    notes: list[str] = field(default_factory=list[str])
    pictures: dict[str, str] = field(default_factory=dict[str, str])  # SVG, by the name of the file

    def write(self) -> Path:
        """Keep it and its pictures; returns the file."""
        content = {name: getattr(self, name) for name in ("name", "seed", "machine", "version", "quick")}
        content |= {"goals": [asdict(goal) for goal in self.goals], "broken": self.broken, "notes": self.notes}
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.name}.json"
        path.write_bytes(orjson.dumps(content | self.facts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        for name, picture in self.pictures.items():
            (self.folder / name).write_text(picture)
        return path

    def show(self, console: Console) -> None:
        for table in self.tables:
            console.print(table)
        for note in self.notes:
            console.print(note, markup=False)
        console.print(goals_table([self]))
        for line in self.broken[:20]:
            console.print(f"  BROKEN {escape(line)}", style="red", highlight=False)


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """What an earlier run has kept."""
    path = folder / f"{name}.json"
    return orjson.loads(path.read_bytes()) if path.exists() else None


def goals_table(results: Iterable[Result], failed: Mapping[str, str] | None = None) -> Table:
    """Goals and figures, a line each; and a line for each benchmark that could not run, with the reason."""
    table = Table(title="Goals", title_justify="left", show_edge=False)
    for title in ("benchmark", "goal", "aimed at", "figure", "unit", ""):
        table.add_column(title, justify="right" if title in ("aimed at", "figure") else "left")
    for result in results:
        for goal in result.goals:
            verdict = "[green]holds[/]" if goal.holds else "[red bold]missed[/]"
            figure = f"{goal.figure:,.3g}" if abs(goal.figure) < 10 else f"{goal.figure:,.1f}".removesuffix(".0")
            table.add_row(result.name, goal.name, goal.goal, figure, goal.unit, verdict)
        if result.broken:
            table.add_row(result.name, "invariants", "hold", str(len(result.broken)), "broken", "[red bold]BROKEN[/]")
    for name, reason in (failed or {}).items():
        table.add_row(name, escape(reason[:100]), "", "", "", "[red bold]did not run[/]")
    return table


def exit_code(results: Sequence[Result], failed: Mapping[str, str]) -> int:
    """Aims may be missed; a broken invariant, or a benchmark that could not run, fails the command."""
    return 1 if failed or any(result.broken for result in results) else 0


def plain(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table whose first column is text, and the others figures."""
    table = Table(title=title, title_justify="left", show_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(f"{one:,g}" if isinstance(one, int | float) else str(one) for one in row))
    return table
