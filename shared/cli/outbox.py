"""``isthmus outbox``: what waits for a relay, and whether there is one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import typer
from rich.table import Table

from shared.cli.connection import Connection
from shared.cli.output import AsJson, cells, console, duration, show_json, table
from shared.cli.services import OnlyService, ask_each

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Events on their way to Kafka. Needs the scope admin."""


@app.command("status")
def status(context: typer.Context, service: OnlyService = None, as_json: AsJson = False) -> None:
    """How many events wait in each service's outbox, for how long, and which cannot be sent."""
    connection: Connection = context.obj
    found, complete = ask_each(service, lambda name: connection.get(name, "/admin/outbox/status"))
    if as_json:
        show_json([{"service": name, **one} for name, one in found.items()])
    elif found:
        console().print(outbox_table(found))
    if not complete:
        raise typer.Exit(1)


def outbox_table(found: Mapping[str, Any]) -> Table:
    made = table("service", "topic", "waiting", "oldest", "relay", "blocked", right="waiting oldest")
    for service, one in found.items():
        relay = one["relay"]
        who = relay["replica"] if relay["active"] else "another replica" if relay["running"] else "[red]none[/]"
        blocked = "\n".join(f"{key['topic']} {key['key']}: {key['reason']}" for key in relay["blocked"] or ())
        topics: list[dict[str, Any]] = one["topics"] or [{"topic": "", "rows": 0, "oldest_seconds": None}]
        for number, topic in enumerate(topics):
            age = topic["oldest_seconds"]
            waiting = cells(topic["topic"], topic["rows"], None if age is None else duration(timedelta(seconds=age)))
            first = number == 0
            made.add_row(service if first else "", *waiting, who if first else "", *cells(blocked if first else ""))
    return made
