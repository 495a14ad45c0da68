"""Every SQL statement in the code fits the migrated schema of its service."""

from __future__ import annotations

import importlib
import re
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from shared.postgres import Database
from shared.topics import SERVICES
from tests.support.databases import Databases

ROOT = Path(__file__).resolve().parents[3]
STATEMENT = re.compile(r"(SELECT|INSERT|UPDATE|DELETE|WITH)\b")


def statements() -> list[tuple[str, str, str]]:
    """Service, module and name of each upper-case constant that is a statement."""
    found: list[tuple[str, str, str]] = []
    for path in sorted([*ROOT.glob("services/**/*.py"), *ROOT.glob("shared/**/*.py")]):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.stem == "__main__":
            continue
        service = module.split(".")[1] if module.startswith("services.") else "inventory"
        for name, value in vars(importlib.import_module(module)).items():
            if name.isupper() and isinstance(value, str) and STATEMENT.match(value.strip()):
                found.append((service, module, name))
    return found


@pytest.fixture(scope="module")
async def prepared(databases: Databases) -> AsyncGenerator[dict[str, Database]]:
    """A database per service for all these tests: they change nothing."""
    names = {service: await databases.create(service) for service in SERVICES if (ROOT / "services" / service).exists()}
    opened = {service: await Database.open(databases.url(service, name)) for service, name in names.items()}
    yield opened
    for service, database in opened.items():
        await database.close()
        await databases.drop(names[service])


@pytest.mark.parametrize(("service", "module", "name"), statements(), ids=lambda part: str(part).split(".")[-1])
async def test_every_statement_fits_the_schema(prepared: dict[str, Database], service: str, module: str, name: str):
    async with prepared[service].reading() as db:
        await db.prepare(getattr(importlib.import_module(module), name))


def test_the_statements_are_found():
    names = {(module, name) for _, module, name in statements()}
    assert ("services.order.store", "LOAD") in names
    assert ("services.inventory.store", "SAVE_LEVELS") in names
    assert ("shared.progress", "ADVANCE_OFFSETS") in names
