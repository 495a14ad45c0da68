"""The generated files: what they should hold, whether they do, and the copies kept of each release."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from shared.contracts import asyncapi, compatibility, flows, golden, openapi, schemas
from shared.contracts.services import all_parts
from shared.topics import TOPICS

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = ROOT / "contracts"
RELEASED = CONTRACTS / "released"
KEPT = ("schemas", "golden", "internal/schemas", "internal/golden")  # of each release


@cache
def contracts() -> Mapping[str, str]:
    """The text of every file below contracts/ but the releases, by relative path."""
    services = all_parts()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    written: dict[str, Any] = {}
    for folder, public, title in (("", True, "Isthmus"), ("internal/", False, "Isthmus, internal topics")):
        topics = [topic for topic in TOPICS if topic.public == public]
        written[f"{folder}asyncapi.json"] = asyncapi.document(topics, services, version, title)
        for topic in topics:
            for type_, event in topic.events.items():
                written[f"{folder}schemas/{type_}.json"] = schemas.of_writer(topic, event)
                written[f"{folder}golden/{type_}.json"] = golden.examples(topic, event)
    for name, parts in services.items():
        written[f"openapi/{name}.json"] = openapi.document(name, parts)
    return {path: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for path, content in written.items()}


def pictures() -> Mapping[Path, str]:
    """The text of the files that hold the picture of the flows."""
    services, readme = all_parts(), ROOT / "README.md"
    drawn = flows.picture(TOPICS, services)
    return {
        readme: flows.in_readme(readme.read_text(), drawn),
        ROOT / "docs/flows.md": flows.page(TOPICS, services),
    }


def write_contracts() -> int:
    """Write contracts/ anew, and remove what does not belong there; returns the number of files."""
    wanted = contracts()
    for path in _present() - set(wanted):
        (CONTRACTS / path).unlink()
    for path, text in wanted.items():
        _write(CONTRACTS / path, text)
    return len(wanted)


def write_pictures() -> None:
    for path, text in pictures().items():
        _write(path, text)


def stale() -> list[str]:
    """What is not as it would be written now, with the command that helps."""
    wanted = contracts()
    differing = [path for path, text in wanted.items() if _text(CONTRACTS / path) != text]
    found = [f"contracts/{path} is out of date: run `make contracts`" for path in differing]
    found += [f"contracts/{path} belongs to nothing: run `make contracts`" for path in _present() - set(wanted)]
    try:
        found += [
            f"{path.relative_to(ROOT)} is out of date: run `make flows`"
            for path, text in pictures().items()
            if _text(path) != text
        ]
    except (FileNotFoundError, ValueError) as error:
        found.append(str(error))
    return sorted(found)


def releases() -> list[str]:
    """The released versions, oldest first."""
    names = [path.name for path in RELEASED.iterdir()] if RELEASED.exists() else []
    return sorted(names, key=lambda version: [int(part) for part in version.split(".")])


def incompatible() -> list[str]:
    """What breaks with the last release."""
    if not releases():
        return []
    new = {
        Path(path).stem: json.loads(text) for path, text in contracts().items() if Path(path).parent.name == "schemas"
    }
    last = releases()[-1]
    old = {path.stem: json.loads(path.read_text()) for path in sorted((RELEASED / last).glob("**/schemas/*.json"))}
    return [f"incompatible with {last}: {breach}" for breach in compatibility.breaches(old, new)]


def release(version: str) -> Path:
    """Keep schemas and examples as ``version``; a released version is never changed."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(f"{version} is no version like 1.2.3")
    if version in releases():
        raise ValueError(f"{version} is released; choose a new version")
    if problems := [*stale(), *incompatible()]:
        raise ValueError("\n".join(problems))
    for folder in KEPT:
        shutil.copytree(CONTRACTS / folder, RELEASED / version / folder)
    return RELEASED / version


def _present() -> set[str]:
    files = [path for path in CONTRACTS.rglob("*") if path.is_file()] if CONTRACTS.exists() else []
    return {path.relative_to(CONTRACTS).as_posix() for path in files if RELEASED not in path.parents}


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
