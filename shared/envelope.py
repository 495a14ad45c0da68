"""Between Kafka records and messages: the CloudEvents envelope, read and written in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from pydantic import ValidationError

from shared.messages import CLOUDEVENTS_VERSION, Event, Message, Topic
from shared.tracing import Trace

Headers = Sequence[tuple[str, bytes]]


class Record(Protocol):
    """The part of a consumed Kafka record that is read here."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> Any | None: ...
    @property
    def value(self) -> Any | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


@dataclass(frozen=True)
class Unknown:
    """A well-formed message of a type that this release does not know: skipped and counted."""

    type: str


@dataclass(frozen=True)
class Unheard:
    """A message of a type that this consumer does not hear: passed over, its body unread."""

    key: str
    sequence: int


@dataclass(frozen=True)
class Poison:
    """A record that cannot be understood: it goes to the dead letters."""

    reason: str


def headers_for(
    *, id: UUID, source: str, type: str, recorded_at: datetime, key: str, sequence: int,
    correlation_id: str, causation_id: str | None, traceparent: str,
) -> list[tuple[str, bytes]]:  # fmt: skip
    """CloudEvents attributes as Kafka headers; extensions: partitionkey, sequence, correlationid, causationid."""
    headers = [
        ("ce_specversion", CLOUDEVENTS_VERSION.encode()),
        ("ce_id", str(id).encode()),
        ("ce_source", source.encode()),
        ("ce_type", type.encode()),
        ("ce_time", recorded_at.isoformat().encode()),
        ("ce_partitionkey", key.encode()),
        ("ce_sequence", str(sequence).encode()),
        ("ce_correlationid", correlation_id.encode()),
        ("ce_traceparent", traceparent.encode()),
    ]
    if causation_id is not None:
        headers.append(("ce_causationid", causation_id.encode()))
    headers.append(("content-type", b"application/json"))
    return headers


Outcome = Message[Event] | Unknown | Poison


def hear(record: Record, topic: Topic[Any], types: frozenset[str] | None) -> Outcome | Unheard:
    """As ``read``, for a consumer of some types only; None: of all."""
    if types is not None:
        headers = dict(record.headers)
        type_ = (headers.get("ce_type") or b"").decode(errors="replace")
        sequence = headers.get("ce_sequence") or b""
        if type_ not in types and type_ in topic.events and sequence.isdigit() and record.key:
            return Unheard(record.key.decode(errors="replace"), int(sequence))
    return read(record, topic)


def read(record: Record, topic: Topic[Any]) -> Outcome:
    """The message in a record. Never raises: what cannot be read is an answer too."""
    headers = dict(record.headers)

    def told(name: str) -> str:
        # A header may have no value at all, though aiokafka's types say otherwise.
        return (headers[name] or b"").decode()

    try:
        type_ = told("ce_type")
        event_class = topic.events.get(type_)
        if event_class is None:
            source = told("ce_source")
            known_source = source == topic.source and type_.startswith(f"isthmus.{topic.owner}.")
            return Unknown(type_) if known_source else Poison(f"type {type_} from {source}")
        event = event_class.model_validate_json(record.value or b"")
        sequence = int(told("ce_sequence"))
        if sequence < 1:
            return Poison(f"sequence {sequence} is below 1")
        recorded_at = datetime.fromisoformat(told("ce_time"))
        if recorded_at.tzinfo is None:
            return Poison(f"time {recorded_at} has no time zone")
        return Message(
            id=UUID(told("ce_id")),
            event=event,
            topic=record.topic,
            key=(record.key or b"").decode(),
            sequence=sequence,
            recorded_at=recorded_at,
            correlation_id=told("ce_correlationid"),
            causation_id=told("ce_causationid") if "ce_causationid" in headers else None,
            trace=Trace.parse(told("ce_traceparent") if "ce_traceparent" in headers else None),
            partition=record.partition,
            offset=record.offset,
        )
    except KeyError as error:
        return Poison(f"header {error} is missing")
    except ValidationError as error:
        # The input itself stays out of the reason: it may hold what nobody should read in a log.
        return Poison(
            f"invalid {event_class_name(error)}: {error.errors(include_input=False, include_url=False)}"[:2000]
        )
    except (UnicodeDecodeError, ValueError) as error:
        return Poison(f"unreadable header: {error}")


def event_class_name(error: ValidationError) -> str:
    return error.title
