"""``isthmus``: the commands, and what becomes of their errors."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from shared.cli import dlq, drift, ledger, orders, outbox, process, stock, topics
from shared.cli.connection import CliError, Connection
from shared.cli.output import show_error


def in_place(arguments: Sequence[str]) -> list[str]:
    """``--stack`` with its value moved before the command, ``--json`` after it: they may stand on either side.

    What follows ``--`` stays as it is.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    stack: list[str] = []
    words: list[str] = []
    after: list[str] = []
    given = iter(arguments[:end])
    for word in given:
        if word == "--stack":
            value = next(given, None)
            if value is None:
                return [word]  # and be told that it needs one
            stack += [word, value]
        elif word.startswith("--stack="):
            stack.append(word)
        else:
            (after if word == "--json" else words).append(word)
    return [*stack, *words, *after, *arguments[end:]]


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
app.add_typer(orders.app, name="order")
app.command("stock")(stock.show)
app.add_typer(ledger.app, name="ledger")
app.command("topics")(topics.show)
app.command("lag")(topics.lag)
app.command("drift")(drift.show)
app.add_typer(dlq.app, name="dlq")
app.add_typer(outbox.app, name="outbox")
app.add_typer(process.app, name="process")


@app.callback()
def choose(
    context: typer.Context,
    stack: Annotated[Path | None, typer.Option(help="Directory of a local stack; .local of this checkout by default.")]
    = None,
) -> None:  # fmt: skip
    """Look at a running Isthmus: orders and why things happened to them, stock, the books, topics and their readers.

    And mend it: dead letters, what waits in outboxes, orders that are stuck.

    The local stack ([bold]make up[/]) is found without being told. For any other platform set ISTHMUS_ORDER_URL,
    ISTHMUS_INVENTORY_URL, KAFKA_BOOTSTRAP_SERVERS, and ISTHMUS_TOKEN, or ISTHMUS_AUTH_TOKEN_URL with ISTHMUS_CLIENT_ID
    and ISTHMUS_CLIENT_SECRET: where any of these is set, all that is needed comes from there. With [bold]--stack[/]
    nothing does. Every command has [bold]--json[/] for programs; both may stand before the command or after it.
    """
    context.obj = Connection(stack)


def main() -> None:
    """Run it; 0 is done, 1 refused or unreachable (one line on stderr says why), 2 wrong usage."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its complaints come to us as exceptions, too
    warnings.filterwarnings("ignore", module="aiokafka")
    try:
        app(in_place(sys.argv[1:]), prog_name="isthmus")
    except CliError as error:
        show_error(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
