"""The golden examples of this release and of all before it: what was once said stays readable for ever."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator

from shared import envelope
from shared.contracts import golden, schemas
from shared.contracts.files import CONTRACTS, RELEASED
from shared.messages import Event, Message, Topic
from shared.topics import ORDERS, TOPICS

Json = dict[str, Any]
EVENTS: dict[str, tuple[Topic[Any], type[Event]]] = {
    type_: (topic, event) for topic in TOPICS for type_, event in topic.events.items()
}
FILES = sorted(CONTRACTS.glob("**/golden/*.json"))


def _name(value: object) -> str:
    return value.relative_to(CONTRACTS).as_posix() if isinstance(value, Path) else str(value)


@dataclass
class Kafka:
    """A consumed record."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    partition: int = 0
    offset: int = 0


def read(example: Json, body: Json | None = None) -> Message[Event]:
    topic: Topic[Any] = EVENTS[example["headers"]["ce_type"]][0]
    headers = [(name, value.encode()) for name, value in example["headers"].items()]
    value = json.dumps(example["body"] if body is None else body).encode()
    message = envelope.read(Kafka(topic.name, example["key"].encode(), value, headers), topic)
    assert isinstance(message, Message), message
    return message


def written(event: Event) -> Json:
    """As ``Tx.publish`` writes it."""
    return json.loads(event.model_dump_json(exclude_none=True))


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_a_golden_event_is_read_and_loses_nothing_when_written_again(file: Path) -> None:
    for example in json.loads(file.read_text()):
        message = read(example)
        again = written(message.event)
        assert again == _filled(example["body"], again)
        assert read(example, again).event == message.event
        if RELEASED not in file.parents and example["name"] == "every field":
            assert again == example["body"]


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_its_headers_are_read_and_written_the_same(file: Path) -> None:
    for example in json.loads(file.read_text()):
        message, headers = read(example), example["headers"]
        assert message.key == headers["ce_partitionkey"]
        assert EVENTS[headers["ce_type"]][0].key_of(message.event) == message.key
        again = envelope.headers_for(
            id=message.id, source=headers["ce_source"], type=headers["ce_type"], recorded_at=message.recorded_at,
            key=message.key, sequence=message.sequence, correlation_id=message.correlation_id,
            causation_id=message.causation_id, traceparent=str(message.trace),
        )  # fmt: skip
        assert {name: value.decode() for name, value in again} == headers


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_fields_that_a_newer_release_adds_are_ignored(file: Path) -> None:
    for example in json.loads(file.read_text()):
        assert read(example, _with_more(example["body"])).event == read(example).event


@pytest.mark.parametrize("type_", EVENTS)
def test_every_optional_field_is_in_one_example_and_missing_in_another(type_: str) -> None:
    topic, event = EVENTS[type_]
    schema = schemas.of_writer(topic, event)
    full, *bare = (set(example["body"]) for example in golden.examples(topic, event))
    assert full == set(schema["properties"])
    assert bare in ([], [set(schema["required"])])
    assert bare or full == set(schema["required"])


@pytest.mark.parametrize("type_", EVENTS)
def test_examples_are_what_the_schema_says(type_: str) -> None:
    topic, event = EVENTS[type_]
    validator: Any = Draft202012Validator(schemas.of_writer(topic, event))
    for example in golden.examples(topic, event):
        validator.validate(example["body"])
        assert list(validator.iter_errors({**example["body"], "surprise": 1})), "a writer adds nothing unsaid"


def test_a_field_without_an_example_is_pointed_out() -> None:
    class OrderSung(Event):
        order_id: UUID
        melody: str

    with pytest.raises(ValueError, match=r"OrderSung\.melody has no example"):
        golden.examples(cast(Topic[Any], ORDERS), OrderSung)


@pytest.mark.parametrize("type_", EVENTS)
def test_no_field_is_both_required_and_nullable(type_: str) -> None:
    """Events are written without nulls, so nobody could read such a field's absence."""
    _, event = EVENTS[type_]
    for info in event.model_fields.values():
        assert not (info.is_required() and type(None) in getattr(info.annotation, "__args__", ()))


def test_business_time_is_kept_apart_from_the_time_of_recording() -> None:
    (example, *_) = golden.examples(ORDERS, EVENTS["isthmus.order.OrderPlaced.v1"][1])
    message = read(example)
    assert message.event.occurred_at == datetime.fromisoformat("2026-03-01T12:00:00+00:00") < message.recorded_at


def _filled(body: Any, again: Any) -> Any:
    """``body`` with the defaults that it left out, taken from ``again``."""
    if isinstance(body, dict):
        old, new = cast(Json, body), cast(Json, again)
        return {**new, **{name: _filled(value, new.get(name)) for name, value in old.items()}}
    if isinstance(body, list):
        return [_filled(one, other) for one, other in zip(cast(list[Any], body), again, strict=True)]
    return body


def _with_more(body: Any) -> Any:
    """``body`` with a new field in every object."""
    if isinstance(body, dict):
        old = cast(Json, body)
        return {**{name: _with_more(value) for name, value in old.items()}, "added_later": {"deep": [1, None]}}
    return [_with_more(one) for one in cast(list[Any], body)] if isinstance(body, list) else body
