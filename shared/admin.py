"""Operators' commands that belong to no service: ``python -m shared.admin topics``."""

from __future__ import annotations

import asyncio
import os

import typer

from shared.kafka import create_topics
from shared.topics import ALL_TOPICS

app = typer.Typer(help=__doc__, no_args_is_help=True)


@app.callback()
def main() -> None:
    """Several commands, one program."""


@app.command()
def topics(replication_factor: int = typer.Option(1, help="copies of each partition")) -> None:
    """Create every topic that does not exist yet; existing ones are left as they are."""
    bootstrap = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if not bootstrap:
        raise typer.BadParameter("set KAFKA_BOOTSTRAP_SERVERS, as in KAFKA_BOOTSTRAP_SERVERS=localhost:9092")
    created = asyncio.run(create_topics(bootstrap, ALL_TOPICS, replication_factor))
    typer.echo(f"{created} topics created, {len(ALL_TOPICS) - created} were there")


if __name__ == "__main__":
    app()
