"""``isthmus process``: orders that wait longer than they should, and what an operator does about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.table import Table

from shared.cli.connection import Connection
from shared.cli.orders import Reference, find, is_id
from shared.cli.output import AsJson, cells, console, moment, show_json, table

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Orders that are stuck. Needs the scope admin, and orders:read where an order is named by its reference."""


@app.command("stuck")
def stuck(
    context: typer.Context,
    older_than: Annotated[float, typer.Option(min=0, help="Seconds overdue.")] = 60,
    attempts: Annotated[int, typer.Option(min=0, help="Tries without a clear answer that are nothing unusual.")] = 3,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="How many of each kind.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Orders whose deadline, payment, refund, parcel or last answers are overdue, and what they wait for."""
    connection: Connection = context.obj
    path = "/admin/process/stuck"
    items = connection.get("order", path, older_than=older_than, attempts=attempts, limit=limit)["items"]
    if as_json:
        show_json(items)
    else:
        console().print(stuck_table(items) if items else "No order is stuck.")


def stuck_table(items: Sequence[Mapping[str, Any]]) -> Table:
    made = table("order", "what", "state", "tries", "since (UTC)", "waits for", right="tries")
    for one in items:
        made.add_row(*cells(one["order_id"], _what(one), one["state"], one["attempts"], moment(one["since"]),
                            one["waits_for"]))  # fmt: skip
    return made


def _what(piece: Mapping[str, Any]) -> str:
    return f"parcel {piece['parcel']}" if piece["what"] == "parcel" else piece["what"]


@app.command("retry")
def retry(context: typer.Context, order: Reference, as_json: AsJson = False) -> None:
    """Ask provider and carrier now what the order waits for, instead of when it is due; nothing else changes."""
    connection: Connection = context.obj
    done = connection.post("order", f"/admin/process/{_id_of(connection, order)}/retry")
    if as_json:
        show_json(done)
    elif done["woken"]:
        console().print("\n".join(f"{_what(one)}, {one['state']}: asked now" for one in done["woken"]))
    else:
        console().print("It waits for nobody who can be asked.")


@app.command("cancel")
def cancel(
    context: typer.Context, order: Reference,
    reason: Annotated[str, typer.Option(help="A code of lower-case letters, digits and underscores.")],
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Cancel the whole order, and give back what was paid. Refused once a parcel has left the warehouse."""
    connection: Connection = context.obj
    path = f"/admin/process/{_id_of(connection, order)}/cancel"
    found = connection.post("order", path, {"reason": reason}, key=str(uuid4()))
    if as_json:
        show_json(found)
    elif found["cancellation_pending"]:
        console().print("The carrier is asked to give the parcels back; its word decides.")
    else:
        console().print(f"The order is {found['state']}.")


def _id_of(connection: Connection, order: str) -> str:
    return order if is_id(order) else find(connection, order)["order_id"]
