"""``isthmus dlq``: messages that were put aside, why, and having them applied after all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from shared.cli.connection import CliError, Connection
from shared.cli.output import AsJson, cells, console, moment, show_json, table
from shared.cli.services import OnlyService, ServiceName, ask_each

app = typer.Typer(no_args_is_help=True)

Offset = Annotated[int, typer.Argument(min=0, help="Of the dead letter, as `dlq list` shows it.")]
Facts = Mapping[str, Any]


@app.callback()
def group() -> None:
    """Dead letters: messages that a consumer could not apply. Needs the scope admin."""


@app.command("list")
def list_(
    context: typer.Context, service: OnlyService = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of each service.")] = 50,
    waiting: Annotated[bool, typer.Option("--waiting", help="Of these, only those that were not redriven.")] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """The last dead letters of every service, newest first, and what became of them."""
    connection: Connection = context.obj
    found, complete = ask_each(service, lambda name: list(connection.entries(name, "/admin/dlq", limit)))
    letters = [
        {"service": name, **one} for name, some in found.items() for one in some if not (waiting and one["redriven"])
    ]
    if as_json:
        show_json(letters)
    elif letters:
        console().print(letters_table(letters))
    elif complete:
        console().print("No dead letter." if not waiting else "No dead letter waits.")
    if not complete:
        raise typer.Exit(1)


def letters_table(letters: Sequence[Facts]) -> Table:
    made = table("service", "offset", "put aside (UTC)", "consumer", "event", "state", "reason", right="offset")
    for one in letters:
        state = f"redriven by {one['redriven']['by']}" if one["redriven"] else one["state"]
        reason = one["reason"] if len(one["reason"]) <= 120 else one["reason"][:119] + "…"
        made.add_row(*cells(one["service"], one["offset"], moment(one["put_aside_at"]), one["consumer"],
                            _class_of(one["type"]), state, reason))  # fmt: skip
    return made


def _class_of(type_: str | None) -> str | None:
    """The event's class, as in OrderPlaced; what is no type of ours stays as it is."""
    parts = (type_ or "").split(".")
    return parts[-2] if len(parts) == 4 and parts[0] == "isthmus" else type_


@app.command("show")
def show(context: typer.Context, service: ServiceName, offset: Offset, as_json: AsJson = False) -> None:
    """A dead letter: where it was, why it was put aside, its headers and what it holds."""
    connection: Connection = context.obj
    letter = connection.get(service, f"/admin/dlq/{offset}")
    if as_json:
        show_json({"service": service, **letter})
        return
    out = console()
    for made in letter_tables(service, letter):
        out.print(made)
    payload = letter["payload"]
    out.print("\n[bold]Payload[/]" + ("" if payload["base64"] is None else ", in base64"))
    out.print(payload["text"] if payload["base64"] is None else payload["base64"], markup=False, soft_wrap=True)


def letter_tables(service: str, letter: Facts) -> Sequence[Table]:
    """Facts, and headers."""
    done = letter["redriven"]
    facts = {
        "dead letter": f"{letter['offset']} of {service}",
        "put aside": f"{moment(letter['put_aside_at'])} UTC, by {letter['consumer']}",
        "reason": letter["reason"],
        "state": f"redriven {moment(done['at'])} UTC by {done['by']}: {done['outcome']}" if done else letter["state"],
        "from": f"{letter['topic']}, partition {letter['partition']}, offset {letter['origin_offset']}",
        "key": letter["key"],
        "event": f"{letter['type']} {letter['event_id'] or ''}",
        "bytes": letter["bytes"],
    }
    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim")
    made.add_column(overflow="fold")
    for name, value in facts.items():
        made.add_row(name, *cells(value))
    headers = table("header", "value", title="\nHeaders")
    for one in letter["headers"]:
        headers.add_row(*cells(one["name"], one["text"] if one["base64"] is None else f"base64 {one['base64']}"))
    return made, headers


@app.command("redrive")
def redrive(
    context: typer.Context, service: ServiceName,
    offset: Annotated[int | None, typer.Argument(min=0, help="Of the dead letter, as `dlq list` shows it.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of the service that wait, oldest first.")] = False,
    consumer: Annotated[str | None, typer.Option(help="With --all: only of this consumer.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="With --all: only this event, as OrderPlaced.")] = None,
    reason: Annotated[str | None, typer.Option(help="With --all: only where the reason contains this.")] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Apply a dead letter now, to the consumer that put it aside; one that was applied stays as it is."""
    filters = {name: value for name, value in {"consumer": consumer, "type": type_, "reason": reason}.items() if value}
    if (offset is None) != all_:
        raise typer.BadParameter("say which: an OFFSET, or --all")
    if filters and not all_:
        raise typer.BadParameter(f"--{next(iter(filters))} goes with --all")
    connection: Connection = context.obj
    if offset is not None:
        done = connection.post(service, f"/admin/dlq/{offset}/redrive")
        if as_json:
            show_json(done)
        else:
            console().print({"applied": "Applied.", "already_applied": "It was applied already."}[done["outcome"]])
        return
    report = connection.post(service, "/admin/dlq/redrive", filters)
    if as_json:
        show_json(report)
    else:
        _print_report(report)
    if report["failed"]:
        left = report["failed"] + report["held_back"]
        raise CliError(f"{service}: {left} dead letters still wait, {report['failed']} of them were refused again")


def _print_report(report: Facts) -> None:
    out = console()
    names = {"applied": "applied", "already_applied": "applied already", "failed": "refused again",
             "held_back": "held back: an earlier one of their key was refused"}  # fmt: skip
    told = [f"{report[name]} {words}" for name, words in names.items() if report[name]]
    out.print(", ".join(told) or "No dead letter waits.", highlight=False)
    if report["failures"]:
        made = table("offset", "consumer", "key", "reason", right="offset")
        for one in report["failures"]:
            made.add_row(*cells(one["offset"], one["consumer"], one["key"], one["reason"]))
        out.print(made)
    if report["more"]:
        out.print("There are more: say it again.")
