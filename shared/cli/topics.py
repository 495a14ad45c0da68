"""``isthmus topics`` and ``isthmus lag``: what lies in Kafka, and who has not read it yet."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.live import Live
from rich.table import Table

from shared.cli.connection import Connection
from shared.cli.output import AsJson, cells, console, show_json, table
from shared.kafka import Group, Place, bounds, groups, retentions
from shared.messages import DAY_MS
from shared.topics import ALL_TOPICS

Offsets = Mapping[Place, tuple[int, int]]  # begin and end of a partition
OURS = frozenset(topic.name for topic in ALL_TOPICS)


@dataclass(frozen=True)
class Lag:
    """Messages of a topic that a group has not read; ``members`` is how many processes it has now."""

    group: str
    topic: str
    lag: int
    members: int


def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Every topic of the platform: its owner, what orders it, how long it is kept, and how much is in it."""
    facts = topic_rows(*context.obj.kafka(_look_at_topics))
    if as_json:
        show_json(facts)
        return
    made = table("topic", "owner", "key", "public", "partitions", "kept", "messages", right="partitions messages")
    for one in facts:
        made.add_row(
            *cells(one["topic"], one["owner"], one["key"], "yes" if one["public"] else "no", one["partitions"]),
            *(cells(_kept(one["retention_ms"]), one["messages"]) if one["there"] else ("[red]not there[/]", "")),
        )
    console().print(made)


async def _look_at_topics(address: str) -> tuple[Offsets, Mapping[str, int]]:
    found = await bounds(address, OURS)
    return found, await retentions(address, sorted({topic for topic, _ in found}))


def topic_rows(found: Offsets, kept: Mapping[str, int]) -> list[dict[str, Any]]:
    """A row per topic that there should be; ``messages`` counts what is kept, a relay's repeats included."""
    rows: list[dict[str, Any]] = []
    for topic in ALL_TOPICS:
        parts = [end - begin for (name, _), (begin, end) in found.items() if name == topic.name]
        rows.append(
            {
                "topic": topic.name, "owner": topic.owner, "key": topic.key or None, "public": topic.public,
                "there": bool(parts), "partitions": len(parts) or topic.partitions,
                "retention_ms": kept.get(topic.name, topic.retention_ms), "messages": sum(parts),
            }
        )  # fmt: skip
    return rows


def _kept(milliseconds: int) -> str:
    return "for ever" if milliseconds < 0 else f"{milliseconds / DAY_MS:g} days"


def lag(
    context: typer.Context,
    above: Annotated[int, typer.Option(min=0, help="Highlight what is more than so many messages behind.")] = 1000,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """How far each consumer group is behind the end of each topic that it reads.

    What counts for a service is the offset in its own database; the one in Kafka, shown here, follows it.
    """
    connection: Connection = context.obj

    def look() -> list[Lag]:
        return lags(*connection.kafka(_look_at_groups))

    if as_json:
        show_json([asdict(one) for one in look()])
        while watch:
            time.sleep(every)
            show_json([asdict(one) for one in look()])
    elif not watch:
        console().print(_lag_table(look(), above))
    else:
        with Live(_lag_table(look(), above), console=console(), auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(_lag_table(look(), above), refresh=True)


async def _look_at_groups(address: str) -> tuple[Sequence[Group], Offsets]:
    found = await groups(address)
    return found, await bounds(address, OURS)


def lags(found: Iterable[Group], places: Offsets) -> list[Lag]:
    """The lag of every group on every topic of the platform that it reads.

    Where a group has committed nothing it has read nothing; what is no longer kept is not behind anybody.
    """
    behind: list[Lag] = []
    for group in found:
        for topic in sorted(group.topics & OURS):
            parts = [
                max(0, end - max(begin, group.committed.get(place, begin)))
                for place, (begin, end) in places.items()
                if place[0] == topic
            ]
            behind.append(Lag(group.name, topic, sum(parts), group.members))
    return behind


def _lag_table(behind: Sequence[Lag], above: int) -> RenderableType:
    if not behind:
        return "Nobody reads any topic of the platform."
    made: Table = table("consumer", "members", "topic", "lag", right="members lag")
    for one in behind:
        style = "bold red" if one.lag > above else "yellow" if not one.members else None
        members = one.members or "none"
        made.add_row(*cells(one.group.removeprefix("isthmus."), members, one.topic, one.lag), style=style)
    made.add_row("all", "", "", str(sum(one.lag for one in behind)), style="bold")
    return made
