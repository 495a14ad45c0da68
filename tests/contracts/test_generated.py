"""The generated files: up to date, sound in themselves, and released once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator

from shared.contracts import files, flows
from shared.contracts.services import all_parts
from shared.topics import SERVICES, TOPICS

Json = dict[str, Any]
ASYNCAPI = ("asyncapi.json", "internal/asyncapi.json")


def document(path: str) -> Json:
    return json.loads(files.contracts()[path])


def refs(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        keywords = cast(Json, part)
        if isinstance(keywords.get("$ref"), str):
            yield keywords["$ref"]
        for value in keywords.values():
            yield from refs(value)
    elif isinstance(part, list):
        for value in cast(list[Any], part):
            yield from refs(value)


def resolve(root: Json, ref: str) -> Any:
    found: Any = root
    assert ref.startswith("#/"), ref
    for name in ref[2:].split("/"):
        found = found[name.replace("~1", "/").replace("~0", "~")]
    return found


def test_all_is_as_it_would_be_written_now_and_compatible() -> None:
    assert [*files.stale(), *files.incompatible()] == []


@pytest.mark.parametrize("path", [*ASYNCAPI, *(f"openapi/{name}.json" for name in SERVICES)])
def test_every_reference_leads_somewhere(path: str) -> None:
    root = document(path)
    found = set(refs(root))
    assert found
    for ref in found:
        resolve(root, ref)


@pytest.mark.parametrize("path", [*ASYNCAPI, *(f"openapi/{name}.json" for name in SERVICES)])
def test_every_schema_is_a_valid_one(path: str) -> None:
    for schema in document(path)["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", ASYNCAPI)
def test_every_message_is_as_described(path: str) -> None:
    root = document(path)
    for message in root["components"]["messages"].values():
        for example in message["examples"]:
            for part in ("headers", "payload"):
                schema = {**message[part], "components": root["components"]}
                validator: Any = Draft202012Validator(schema)
                validator.validate(example[part])


def test_every_topic_event_and_consumer_is_described_once() -> None:
    documents = [document(path) for path in ASYNCAPI]
    channels = [name for one in documents for name in one["channels"]]
    assert sorted(channels) == sorted(topic.name for topic in TOPICS)
    assert {name for name in channels if name in documents[1]["channels"]} == {
        topic.name for topic in TOPICS if not topic.public
    }
    for one in documents:
        told = {ref["$ref"] for channel in one["channels"].values() for ref in channel["messages"].values()}
        assert told == {f"#/components/messages/{name}" for name in one["components"]["messages"]}
    received = [name for one in documents for name, op in one["operations"].items() if op["action"] == "receive"]
    subscriptions = [one for parts in all_parts().values() for one in parts.consumers.subscriptions]
    assert len(received) == sum(len(one.topics) for one in subscriptions) > 0


def test_the_picture_shows_every_service_topic_and_handler() -> None:
    page = flows.page(TOPICS, all_parts())
    assert list(all_parts()) == list(SERVICES)
    for name, parts in all_parts().items():
        for one in parts.consumers.subscriptions:
            assert f"- **{name}** `{one.name}`: {(one.handle.__doc__ or '?').splitlines()[0]}" in page
    for topic in TOPICS:
        assert f"`{topic.name}`" in page


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what is generated, without the releases."""
    for name in ("README.md", "docs/flows.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(files.ROOT / name, tmp_path / name)
    shutil.copy(files.ROOT / "pyproject.toml", tmp_path)
    monkeypatch.setattr(files, "ROOT", tmp_path)
    monkeypatch.setattr(files, "CONTRACTS", tmp_path / "contracts")
    monkeypatch.setattr(files, "RELEASED", tmp_path / "contracts/released")
    files.write_contracts()
    assert files.stale() == []
    return tmp_path


def test_what_was_changed_left_over_or_lost_is_named_with_the_cure(copy: Path) -> None:
    (copy / "contracts/asyncapi.json").write_text("{}")
    (copy / "contracts/openapi/order.json").unlink()
    (copy / "contracts/schemas/old.json").write_text("{}")
    (copy / "README.md").write_text((copy / "README.md").read_text().replace("order --> ", "order -.-> "))
    assert files.stale() == [
        "README.md is out of date: run `make flows`",
        "contracts/asyncapi.json is out of date: run `make contracts`",
        "contracts/openapi/order.json is out of date: run `make contracts`",
        "contracts/schemas/old.json belongs to nothing: run `make contracts`",
    ]
    files.write_contracts()
    files.write_pictures()
    assert files.stale() == []


def test_a_readme_without_markers_is_pointed_out(copy: Path) -> None:
    (copy / "README.md").write_text("# Isthmus\n")
    assert files.stale() == ["README.md has no <!-- flows:begin --> … <!-- flows:end -->"]


def test_a_release_is_kept_once_and_the_last_one_judges(copy: Path) -> None:
    for version in ("0.9.0", "0.10.0"):
        files.release(version)
    assert files.releases() == ["0.9.0", "0.10.0"]
    with pytest.raises(ValueError, match="is released"):
        files.release("0.9.0")
    kept = copy / "contracts/released/0.10.0/schemas/isthmus.order.OrderPlaced.v1.json"
    schema = json.loads(kept.read_text())
    schema["properties"]["colour"] = {"type": "string"}
    kept.write_text(json.dumps(schema))
    (breach,) = files.incompatible()
    assert breach.startswith("incompatible with 0.10.0: isthmus.order.OrderPlaced.v1: colour: removed or renamed")
    with pytest.raises(ValueError, match="incompatible with"):
        files.release("0.11.0")
    with pytest.raises(ValueError, match="no version"):
        files.release("next")
