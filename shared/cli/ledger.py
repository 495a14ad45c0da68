"""``isthmus ledger``: the books that the order service keeps, double entry per currency."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from shared.cli import orders
from shared.cli.connection import Connection
from shared.cli.output import AsJson, cells, console, moment, show_json, table

app = typer.Typer(no_args_is_help=True, help="The books: trial balance and journal.")


def when(text: str) -> datetime:
    """A date or a time of ISO 8601; UTC where it names no zone."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text} is no date or time of ISO 8601, as 2026-03-01 or 2026-03-01T12:00Z"
        ) from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


From = Annotated[
    datetime | None, typer.Option("--from", parser=when, metavar="TIME", help="From this date or time on.")
]
Until = Annotated[
    datetime | None, typer.Option("--until", parser=when, metavar="TIME", help="Before this date or time.")
]
Currency = Annotated[str | None, typer.Option(help="Only this one, as GBP.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV, as the service writes it.")]


@app.command("trial-balance")
def trial_balance(
    context: typer.Context, currency: Currency = None, since: From = None, until: Until = None, as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Debits, credits and balance of every account; per currency they must be equal."""
    connection: Connection = context.obj
    asked = {"currency": currency, "from": _iso(since), "until": _iso(until)}
    if as_csv:
        sys.stdout.write(connection.text("order", "/ledger/trial-balance", format="csv", **asked))
        return
    balance = connection.get("order", "/ledger/trial-balance", **asked)
    if as_json:
        show_json(balance)
        return
    out = console()
    for one in balance["currencies"]:
        made = table("account", "type", "debit", "credit", "balance", right="debit credit balance",
                     title=one["currency"])  # fmt: skip
        for account in one["accounts"]:
            made.add_row(*cells(*(account[name] for name in ("account", "type", "debit", "credit", "balance"))))
        made.add_row("all", "", *cells(one["debit"], one["credit"]), "", style="bold")
        out.print(made)
        if one["debit"] != one["credit"]:
            out.print("[bold red]Debits and credits differ.[/]")
    if not balance["currencies"]:
        out.print("Nothing has been booked.")


@app.command()
def journal(
    context: typer.Context,
    order: Annotated[str | None, typer.Option(help="Only what this order (id or external reference) brought.")] = None,
    account: Annotated[str | None, typer.Option(help="Only this account, as revenue.")] = None,
    currency: Currency = None, since: From = None, until: Until = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many transactions.")] = 100,
    as_csv: AsCsv = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Transactions of the ledger in the order of recording, an entry a line; with --csv all of them."""
    connection: Connection = context.obj
    order_id = orders.find(connection, order)["order_id"] if order else None
    asked = {
        "order_id": order_id, "account": account, "currency": currency, "from": _iso(since), "until": _iso(until),
    }  # fmt: skip
    if as_csv:
        sys.stdout.write(connection.text("order", "/ledger/journal", format="csv", **asked))
        return
    entries = list(connection.entries("order", "/ledger/journal", limit, **asked))
    if as_json:
        show_json(entries)
        return
    made = table("entry", "when (UTC)", "kind", "account", "debit", "credit", "", right="debit credit")
    before = None
    for one in entries:
        first = one["transaction_id"] != before
        head = (one["transaction_id"], moment(one["occurred_at"]), one["kind"]) if first else ("", "", "")
        made.add_row(*cells(*head, one["account"], one["debit"], one["credit"], one["currency"]))
        before = one["transaction_id"]
    console().print(made if entries else "No entry is like that.")


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
