"""Views: tables that can be built anew from Kafka's log at any time. How it is done: shared/rebuild.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.consume import Consumers, Handle
from shared.messages import Topic


@dataclass(frozen=True)
class View:
    """Tables that hold what the events of ``topics`` say, and nothing else: built anew they are the same.

    ``handle`` publishes nothing and bears repeats. Only the consumer ``name`` writes to the tables; with ``own``, only
    the transactions in which the service itself says these events.
    """

    name: str
    topics: Sequence[Topic[Any]]
    tables: Sequence[str]
    handle: Handle[Any]
    hears: frozenset[str] | None = None
    own: bool = False

    @property
    def schema(self) -> str:
        """Where the new tables are while it is rebuilt."""
        return f"rebuild_{self.name}"

    @property
    def replaced(self) -> str:
        """Where the old ones are put aside."""
        return f"replaced_{self.name}"


def views_of(consumers: Consumers) -> list[View]:
    """What the consumers of a service keep that do nothing else."""
    return [View(one.name, one.topics, one.view, one.handle, one.hears) for one in consumers.subscriptions if one.view]
