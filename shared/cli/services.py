"""Which services a command asks, and one that does not answer: the others are asked all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar

import typer

from shared.cli.connection import CliError
from shared.cli.output import show_error
from shared.topics import SERVICES

T = TypeVar("T")


def known(name: str | None) -> str | None:
    """The name of a service, as an argument must be. Raises BadParameter for any other."""
    if name is not None and name not in SERVICES:
        raise typer.BadParameter(f"{name} is no service; there are {', '.join(SERVICES)}")
    return name


ServiceName = Annotated[str, typer.Argument(metavar="SERVICE", callback=known, help=", ".join(SERVICES))]
OnlyService = Annotated[str | None, typer.Option("--service", "-s", callback=known, help="Only this one.")]


def ask_each(service: str | None, ask: Callable[[str], T]) -> tuple[dict[str, T], bool]:
    """What ``ask`` finds, by service; and whether each has answered. Stderr says which has not, and why."""
    found: dict[str, T] = {}
    names: Iterable[str] = SERVICES if service is None else (service,)
    for name in names:
        try:
            found[name] = ask(name)
        except CliError as error:
            show_error(str(error))
    return found, len(found) == len(tuple(names))
