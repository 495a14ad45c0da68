"""What tests share: a Kafka and a Postgres of their own, started when the first test asks for them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from deploy.local.stack import Stack
from shared.postgres import Database
from shared.topics import SERVICES
from tests.support.databases import Databases

ROOT = Path(__file__).resolve().parents[1]

# A Kafka or a database of the developer's own, named in the shell for `make up`, is none for tests to write to.
for name in ("KAFKA_BOOTSTRAP_SERVERS", *(f"{service.upper()}_DATABASE_URL" for service in SERVICES)):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def infrastructure() -> Generator[Stack]:
    """Kafka and Postgres in .local/test: found running or started, and ended with the last session that uses them.

    With ISTHMUS_KEEP_TEST_STACK=1 they keep running, and the next session starts at once.
    """
    stack = Stack(ROOT / ".local" / "test")
    stack.directory.mkdir(parents=True, exist_ok=True)
    with open(stack.directory / "sessions.lock", "a") as sessions:
        fcntl.flock(sessions, fcntl.LOCK_SH)
        stack.up(infra_only=True)
        yield stack
        if os.environ.get("ISTHMUS_KEEP_TEST_STACK") == "1":
            return
        try:
            fcntl.flock(sessions, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another session still runs its tests
        stack.down()


@pytest.fixture(scope="session")
async def databases(infrastructure: Stack) -> AsyncGenerator[Databases]:
    """Makes fresh, migrated databases; for tests that need several, or one of a particular service."""
    made = await Databases.open(infrastructure)
    yield made
    await made.close()


@pytest.fixture
async def database(request: pytest.FixtureRequest, databases: Databases) -> AsyncGenerator[Database]:
    """A fresh, migrated database of the service after which the test's folder is named; else of inventory."""
    folder = request.path.parent.name
    async with databases.fresh(folder if folder in SERVICES else "inventory") as fresh:
        yield fresh
