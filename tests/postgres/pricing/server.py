"""A Postgres for these tests: the one that ISTHMUS_TEST_DATABASE_URL names, else one of our own, ended with the run."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg

from deploy.local import postgres
from shared.migrate import migrate
from shared.postgres import Database

SERVICES = Path(__file__).parents[3] / "services"
PASSWORD = "only-for-tests"


@asynccontextmanager
async def server(folder: Path) -> AsyncGenerator[str]:
    """The URL of a running server, without a database's name."""
    given = os.environ.get("ISTHMUS_TEST_DATABASE_URL")
    if given:
        yield given.rpartition("/")[0]
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"postgresql://{postgres.ADMIN}:{PASSWORD}@127.0.0.1:{port}"
    argv = postgres.program(folder, port, PASSWORD).argv
    process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.DEVNULL)
    try:
        for _ in range(300):
            if await postgres.ready(f"{url}/postgres"):
                break
            await asyncio.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 20)


@asynccontextmanager
async def migrated(url: str, service: str) -> AsyncGenerator[Database]:
    """An empty database of this service, dropped afterwards."""
    name = f"test_{service}_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(os.environ.get("ISTHMUS_TEST_DATABASE_URL") or f"{url}/postgres")
    try:
        await admin.execute(f'CREATE DATABASE "{name}"')
        await migrate(f"{url}/{name}", SERVICES / service / "migrations")
        database = await Database.open(f"{url}/{name}", max_size=8)
        try:
            yield database
        finally:
            await database.close()
            await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await admin.close()
