"""``isthmus drift``: what the order service's reconciler has found, and how far it is."""

from __future__ import annotations

from typing import Annotated

import typer

from shared.cli.connection import Connection
from shared.cli.output import AsJson, cells, console, moment, show_json, table


def show(
    context: typer.Context,
    closed: Annotated[bool, typer.Option("--closed", help="Also what is gone again, of the last 30 days.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="How many, the newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Orders and payments that differ from what other parties have of them."""
    connection: Connection = context.obj
    told = connection.get("order", "/admin/reconciliation", closed=str(closed).lower(), limit=limit)
    if as_json:
        show_json(told)
        return
    out = console()
    if told["findings"]:
        found = table("kind", "order or payment", "expected", "found", "since (UTC)", "tries", "", right="tries")
        for one in told["findings"]:
            state = "gone" if one["closed_at"] else "" if one["mendable"] else "to be looked into"
            found.add_row(*cells(one["kind"], one["subject"], one["expected"], one["found"], moment(one["first_seen"]),
                                 one["attempts"], state))  # fmt: skip
        out.print(found)
    else:
        out.print("Nothing differs.")
    passes = table("walk", "last whole pass (UTC)", title="\nPasses")
    for one in told["walks"]:
        passes.add_row(*cells(one["walk"], moment(one["finished_at"]) or "none yet"))
    out.print(passes)
