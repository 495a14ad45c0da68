"""``isthmus stock``: where a product is, what can be promised, and how it came to that."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from shared.cli.connection import Connection
from shared.cli.output import AsJson, cells, console, moment, show_json, table


def show(
    context: typer.Context, sku: str,
    movements: Annotated[int, typer.Option("--movements", "-n", min=0, help="How many of the last movements.")] = 10,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Levels of a SKU per warehouse, what can be promised, and its last movements."""
    connection: Connection = context.obj
    path = f"/stock/{quote(sku, safe='')}"
    stock = connection.get("inventory", path)
    last = list(connection.entries("inventory", f"{path}/movements", movements, newest_first=True))
    if as_json:
        show_json({**stock, "movements": last})
        return
    out = console()
    levels = table("warehouse", "on hand", "reserved", "available", right="available", title=None)
    levels.columns[1].justify = levels.columns[2].justify = "right"
    for one in stock["levels"]:
        levels.add_row(*cells(one["warehouse"], one["on_hand"], one["reserved"], one["available"]))
    if len(stock["levels"]) > 1:
        totals = [sum(one[name] for one in stock["levels"]) for name in ("on_hand", "reserved")]
        levels.add_row("all", *cells(*totals, stock["available"]), style="bold")
    out.print(f"[bold]{cells(stock['sku'])[0]}[/]: {stock['available']} can be promised")
    out.print(levels if stock["levels"] else "It has never been in any warehouse.")
    if last:
        moved = table("when (UTC)", "quantity", "warehouse", "kind", "by", "reason", right="quantity",
                      title="\nLast movements")  # fmt: skip
        for one in last:
            quantity = f"{one['quantity']:+}"
            moved.add_row(*cells(moment(one["occurred_at"]), quantity, one["warehouse"], one["kind"], one["actor"],
                                 one["reason"]))  # fmt: skip
        out.print(moved)
