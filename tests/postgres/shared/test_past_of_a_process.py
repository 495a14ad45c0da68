"""A process whose database is behind its own past ends and says why; without Kafka it serves HTTP and waits."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from deploy.local.stack import Stack
from deploy.local.supervisor import ROOT
from shared.past import BEHIND
from shared.postgres import Database
from tests.support.databases import Databases, url_of
from tests.support.kernel import value
from tests.support.speaker import Speaker, eventually, until_empty

# Everything of the kernel, a worker that leaves a trace, and a write over HTTP that says something.
SERVICE = """
import sys
from pathlib import Path
from uuid import uuid4
from fastapi import APIRouter
from shared.app import Parts, Service
from shared.dead_letters import put_aside
from shared.settings import Settings
from shared.topics import dead_letters
from shared.work import Worker
from tests.support.kernel import FakeRecord

name = sys.argv.pop(1)

async def assemble(settings, database):
    routes = APIRouter()

    @routes.post("/notes")
    async def note():
        async with database.transaction() as tx:
            poison = FakeRecord("notes.v1", uuid4().int % 2**60, b"k", b"junk")
            await put_aside(tx, dead_letters(name).name, poison, service=name, consumer="note", reason="")
        return "noted"

    async def work():
        async with database.transaction() as tx:
            await tx.db.execute("INSERT INTO holds VALUES (gen_random_uuid(), 'held', 1)")
        return False

    return Parts(routes=[routes], workers=[Worker("work", work, every=60)])

Service(name, Settings, Path("services/inventory"), assemble).run()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Running:
    process: Process
    url: str

    async def ended(self, seconds: float = 30) -> tuple[int | None, list[dict[str, Any]]]:
        """Exit code and the errors it has logged."""
        _, said = await asyncio.wait_for(self.process.communicate(), seconds)
        lines = [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]
        return self.process.returncode, [line for line in lines if line["level"] == "error"]

    async def answer(self, method: str, path: str) -> httpx2.Response | None:
        async with httpx2.AsyncClient(timeout=5) as client:
            try:
                return await client.request(method, self.url + path)
            except httpx2.TransportError:
                return None

    async def problems(self) -> Mapping[str, str] | None:
        answer = await self.answer("GET", "/health/ready")
        return answer.json()["problems"] if answer else None


@asynccontextmanager
async def running(speaker: Speaker, database: Database, kafka: str, *arguments: str) -> AsyncGenerator[Running]:
    port = free_port()
    env = os.environ | {
        "ISTHMUS_DATABASE_URL": url_of(database), "KAFKA_BOOTSTRAP_SERVERS": kafka, "ISTHMUS_HTTP_PORT": str(port),
        "ISTHMUS_AUTH_ISSUER": "http://127.0.0.1:1", "ISTHMUS_AUTH_JWKS_URL": "http://127.0.0.1:1/keys",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, "-c", SERVICE, speaker.name, *arguments]
    process = await asyncio.create_subprocess_exec(*command, env=env, cwd=ROOT, stdout=PIPE, stderr=PIPE)
    try:
        yield Running(process, f"http://127.0.0.1:{port}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@asynccontextmanager
async def reachable_by(port: int, kafka: str) -> AsyncGenerator[None]:
    """Kafka answers at this port, too, inside the block."""
    host, _, kafka_port = kafka.partition(":")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(host, int(kafka_port))
        await asyncio.gather(copy(reader, ours), copy(theirs, writer))

    async with await asyncio.start_server(forward, "127.0.0.1", port):
        yield


@pytest.fixture
async def speaker(infrastructure: Stack, databases: Databases) -> Speaker:
    return await Speaker.new(infrastructure.bootstrap_servers, databases)


@pytest.fixture
async def old(speaker: Speaker, database: Database) -> AsyncGenerator[Database]:
    """A backup that lacks the last thing that was said."""
    await speaker.put_aside(1, database)
    async with speaker.relaying(database):
        await until_empty(database)
    async with speaker.backup(database) as copy:
        await speaker.put_aside(2, database)
        async with speaker.relaying(database):
            await until_empty(database)
        yield copy()


async def test_a_process_on_an_old_backup_ends_before_it_serves(speaker: Speaker, old: Database):
    async with running(speaker, old, speaker.kafka) as process:
        code, errors = await process.ended()
    assert code == BEHIND == 4
    (error,) = errors
    assert "behind its own past" in error["event"]
    assert "docs/how-to/restore.md" in error["event"]
    assert f"python -m services.{speaker.name} past" in error["event"]
    assert error["ahead"] == {f"isthmus.{speaker.name}.dead-letter.v1": 1}
    assert error["first"][0]["offset"] == 1
    assert await value(old, "SELECT count(*) FROM holds") == 0


async def test_without_kafka_http_is_served_and_nothing_else_done_until_it_is_back(speaker: Speaker, old: Database):
    port = free_port()
    async with running(speaker, old, f"127.0.0.1:{port}") as process:

        async def says_why() -> bool:
            return "not yet compared" in ((await process.problems()) or {}).get("past", "")

        await eventually(says_why)
        noted = await process.answer("POST", "/notes")
        assert noted
        assert noted.status_code == 200
        await asyncio.sleep(1)
        assert await value(old, "SELECT count(*) FROM holds") == 0  # no worker has begun
        async with reachable_by(port, speaker.kafka):
            code, errors = await process.ended()
    assert code == BEHIND
    assert len([error for error in errors if "behind its own past" in error["event"]]) == 1
    assert await value(old, "SELECT count(*) FROM holds") == 0
    assert await value(old, "SELECT count(*) FROM outbox") == 1  # noted, and not sent


async def test_without_kafka_a_process_in_order_goes_on_once_it_is_back(speaker: Speaker, database: Database):
    await speaker.put_aside(1, database)
    port = free_port()
    async with running(speaker, database, f"127.0.0.1:{port}") as process:

        async def serves() -> bool:
            return bool(await process.answer("POST", "/notes"))

        async def ready() -> bool:
            return await process.problems() == {}

        await eventually(serves)
        async with reachable_by(port, speaker.kafka):
            await eventually(ready)
            await until_empty(database)
        assert await value(database, "SELECT count(*) FROM holds") == 1
        assert await value(database, "SELECT sum(next_offset) FROM relayed") == 2


async def test_a_running_process_ends_when_its_database_is_put_back(speaker: Speaker, database: Database):
    await speaker.put_aside(1, database)
    async with running(speaker, database, speaker.kafka) as process:
        await until_empty(database)
        before = await value(database, "SELECT next_offset FROM relayed")
        await speaker.put_aside(2, database)
        await until_empty(database)
        async with database.transaction() as tx:  # as a replica that lagged has it, once it is promoted
            await tx.db.execute("UPDATE relayed SET next_offset = $1", before)
        async with database.transaction() as tx:
            await tx.db.execute(
                """SELECT pg_terminate_backend(pid) FROM pg_locks
                   WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database
                                                               WHERE datname = current_database())"""
            )
        code, errors = await process.ended()
    assert code == BEHIND
    assert "behind its own past" in errors[-1]["event"]


async def test_the_command_lists_what_is_missing(speaker: Speaker, old: Database, database: Database):
    async def past(of: Database, kafka: str = speaker.kafka) -> tuple[int | None, list[dict[str, Any]], str]:
        async with running(speaker, of, kafka, "past") as process:
            listed, said = await process.process.communicate()
            return process.process.returncode, [json.loads(line) for line in listed.splitlines()], said.decode()

    code, (missing,), said = await past(old)
    assert code == BEHIND
    assert (missing["topic"], missing["offset"]) == (f"isthmus.{speaker.name}.dead-letter.v1", 1)
    assert set(missing) == {"topic", "partition", "offset", "key", "type", "recorded_at", "id"}
    assert "BEHIND: the log has 1 events" in said
    code, listed, said = await past(database)
    assert (code, listed) == (0, [])
    assert "in order" in said
    code, listed, said = await past(database, "127.0.0.1:1")
    assert (code, listed) == (1, [])
    assert "cannot be compared now" in said
