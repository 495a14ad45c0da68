"""The contracts that others build on: ``python -m shared.contracts write|flows|check|release``."""

from __future__ import annotations

import sys

import typer

from shared.contracts import files

app = typer.Typer(help=__doc__, no_args_is_help=True)


@app.command()
def write() -> None:
    """Write contracts/ anew from the events' models and the services' routes."""
    typer.echo(f"{files.write_contracts()} files in contracts/")


@app.command()
def flows() -> None:
    """Draw the topics and handlers anew, in README.md and docs/flows.md."""
    files.write_pictures()


@app.command()
def check() -> None:
    """Fail if a generated file is out of date, or an event is incompatible with the last release."""
    if problems := [*files.stale(), *files.incompatible()]:
        raise ValueError("\n".join(problems))


@app.command()
def release(version: str) -> None:
    """Keep schemas and examples of VERSION, against which later ones are judged."""
    typer.echo(files.release(version).relative_to(files.ROOT))


if __name__ == "__main__":
    try:
        app()
    except ValueError as error:  # what is wrong with the contracts, one a line
        sys.exit(str(error))
