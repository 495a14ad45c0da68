"""How it looks: tables for people, JSON for programs, one line for an error."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH = 100  # columns where there is no terminal to ask, as in a pipe

AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


def console() -> Console:
    """Where output goes; as wide as the terminal, or as COLUMNS says."""
    out = Console(highlight=False)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = WIDTH
    return out


def table(*columns: str, right: str = "", title: str | None = None) -> Table:
    """A table without lines; ``right`` names the columns, space-separated, that are aligned to the right."""
    made = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold", header_style="dim")
    for column in columns:
        numeric = column in right.split()
        made.add_column(column, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    return made


def cells(*values: Any) -> list[str]:
    """Values as they are, never as markup; nothing for None."""
    return ["" if value is None else escape(str(value)) for value in values]


def show_json(value: Any) -> None:
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode())


def show_error(message: str) -> None:
    print(f"isthmus: {message}", file=sys.stderr)


def duration(span: timedelta) -> str:
    """A span as a person reads it: 12 ms, 1.25 s, 2 min 03 s, 3 h 05 min, 2 d 04 h."""
    if span < timedelta(0):
        return "-" + duration(-span)
    milliseconds = round(span.total_seconds() * 1000)
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.2f} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02} h"


def moment(text: str | datetime | None) -> str:
    """A time in UTC, to the second."""
    if text is None:
        return ""
    at = datetime.fromisoformat(text) if isinstance(text, str) else text
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
