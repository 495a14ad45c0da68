"""What travels between services: events, the topics that carry them, and the messages that wrap them.

A message is a CloudEvents 1.0 event in binary mode (https://github.com/cloudevents/spec, Kafka protocol
binding): attributes as ``ce_*`` headers, the event itself as a JSON body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Generic, TypeVar, get_args
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict
from uuid_utils.compat import uuid5  # the same as that of the standard library, in half the time

from shared.tracing import Trace

CLOUDEVENTS_VERSION = "1.0"
DAY_MS = 24 * 3600 * 1000
FOREVER_MS = -1


class Value(BaseModel):
    """A part of an event: immutable, and blind to fields that a newer release may have added."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Event(Value):
    """Something that happened, in the past tense, said once and never changed.

    ``occurred_at`` is business time: ledger dates, points and segments go by it, and a replay advances it.
    When the event was recorded is the envelope's business (``Message.recorded_at``).
    """

    occurred_at: AwareDatetime


E = TypeVar("E", bound=Event)
E_co = TypeVar("E_co", bound=Event, covariant=True)


@dataclass(frozen=True)
class Topic(Generic[E]):
    """One stream of events, ordered per key.

    ``union`` is the union of the event classes that the topic carries; ``key`` names their attribute that orders
    them. Consumers that join topics rely on equal partition counts.
    """

    name: str
    owner: str
    key: str
    union: object
    about: str
    partitions: int = 12
    retention_ms: int = FOREVER_MS
    max_message_bytes: int = 1_048_576
    public: bool = True

    @cached_property
    def events(self) -> Mapping[str, type[E]]:
        """The topic's event classes by CloudEvents type, as in ``isthmus.order.OrderPlaced.v1``."""
        classes: tuple[type[E], ...] = get_args(self.union) or (self.union,)  # pyright: ignore[reportAssignmentType]
        return {self.type_of(event): event for event in classes}

    def carries(self, event: type[Event]) -> bool:
        return event in self.events.values()

    def type_of(self, event: type[E]) -> str:
        return f"isthmus.{self.owner}.{event.__name__}.v1"

    def key_of(self, event: E) -> str:
        return str(getattr(event, self.key))

    @property
    def source(self) -> str:
        return f"/isthmus/{self.owner}"


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why something is published: a consumed message, a command over HTTP, or a timer.

    Ids of events derive from the id of their cause, so the same cause always says the same thing.
    """

    id: UUID
    correlation_id: str
    trace: Trace = field(default_factory=Trace.new)


@dataclass(frozen=True, kw_only=True)
class Message(Cause, Generic[E_co]):
    """An event as it arrived: with its place in the log and in the life of its entity (``sequence``, 1..n)."""

    event: E_co
    topic: str
    key: str
    sequence: int
    recorded_at: datetime
    causation_id: str | None = None
    partition: int = 0
    offset: int = 0


Batch = Sequence[Message[E]]


def event_id(cause: UUID, event_type: str, key: str, ordinal: int) -> UUID:
    """The id of the ``ordinal``-th event of this type and key that ``cause`` brings about."""
    return uuid5(cause, f"{event_type}/{key}/{ordinal}")
