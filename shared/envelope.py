"""Between Kafka records and messages: the CloudEvents envelope, read and written in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    try:
        told = _attributes(record)
        type_ = told.get("ce_type", "")
        if types is not None and type_ not in types and type_ in topic.events and record.key:
            sequence = told.get("ce_sequence", "")
            if sequence.isdecimal():
                return Unheard(record.key.decode(errors="replace"), int(sequence))
        return _read(record, topic, told)
    except KeyError as error:
        return Poison(f"header {error} is missing")
    except ValidationError as error:
        # The input itself stays out of the reason: it may hold what nobody should read in a log.
        return Poison(f"invalid {error.title}: {error.errors(include_input=False, include_url=False)}"[:2000])
    except ValueError as error:
        return Poison(f"unreadable header: {error}")


def read(record: Record, topic: Topic[Any]) -> Outcome:
    """The message in a record. Never raises: what cannot be read is an answer too."""
    outcome = hear(record, topic, None)
    assert not isinstance(outcome, Unheard)
    return outcome


def _attributes(record: Record) -> dict[str, str]:
    """The CloudEvents attributes; the headers of others may be anything."""
    # A header may have no value at all, though aiokafka's types say otherwise.
    return {name: (value or b"").decode() for name, value in record.headers if name.startswith("ce_")}


def _read(record: Record, topic: Topic[Any], told: Mapping[str, str]) -> Outcome:
    """Raises KeyError for a header that is missing, ValueError for one that cannot be read, ValidationError."""
    type_ = told["ce_type"]
    event_class = topic.events.get(type_)
    if event_class is None:
        source = told["ce_source"]
        known_source = source == topic.source and type_.startswith(f"isthmus.{topic.owner}.")
        return Unknown(type_) if known_source else Poison(f"type {type_} from {source}")
    event = event_class.model_validate_json(record.value or b"")
    sequence = int(told["ce_sequence"])
    if sequence < 1:
        return Poison(f"sequence {sequence} is below 1")
    recorded_at = datetime.fromisoformat(told["ce_time"])
    if recorded_at.tzinfo is None:
        return Poison(f"time {recorded_at} has no time zone")
    return Message(
        id=UUID(told["ce_id"]), event=event, topic=record.topic, key=(record.key or b"").decode(), sequence=sequence,
        recorded_at=recorded_at, correlation_id=told["ce_correlationid"], causation_id=told.get("ce_causationid"),
        trace=Trace.parse(told.get("ce_traceparent")), partition=record.partition, offset=record.offset,
    )  # fmt: skip
