"""Fresh databases in milliseconds: one template per service is migrated, and copied for each test."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg

from deploy.local.stack import Stack
from shared.migrate import KERNEL, migrate
from shared.postgres import Connection, Database

SERVICES = Path(__file__).resolve().parents[2] / "services"


class Databases:
    """Makes databases on the tests' Postgres."""

    def __init__(self, stack: Stack, admin: Connection):
        self._stack, self._admin = stack, admin
        self._templates: dict[str, str] = {}

    @staticmethod
    async def open(stack: Stack) -> Databases:
        return Databases(stack, await asyncpg.connect(stack._admin_url()))

    async def close(self) -> None:
        await self._admin.close()

    @asynccontextmanager
    async def fresh(self, service: str, *, max_size: int = 12) -> AsyncGenerator[Database]:
        """A migrated database of ``service`` that nobody else uses; dropped afterwards."""
        name = await self.create(service)
        database = await Database.open(self.url(service, name), max_size=max_size)
        try:
            yield database
        finally:
            database.pool.terminate()
            await self.drop(name)

    async def drop(self, name: str) -> None:
        await self._admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    async def create(self, service: str) -> str:
        template = self._templates.get(service) or await self._template(service)
        name = f"test_{service}_{uuid4().hex[:12]}"
        await self._admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" OWNER "{service}"')
        return name

    def url(self, service: str, name: str) -> str:
        return f"{self._stack.database_url(service).rpartition('/')[0]}/{name}"

    async def _template(self, service: str) -> str:
        """A migrated database to copy, named by its migrations: made again only when they change."""
        files = [*sorted(KERNEL.glob("*.sql")), *sorted((SERVICES / service / "migrations").glob("*.sql"))]
        digest = hashlib.sha256("".join(file.name + file.read_text() for file in files).encode()).hexdigest()[:12]
        name = f"template_{service}_{digest}"
        await self._admin.execute("SELECT pg_advisory_lock(hashtext('isthmus.test.templates'))")
        try:
            if not await self._admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
                part = f"{name}_{uuid4().hex[:6]}"  # named so only when complete
                await self._admin.execute(f'CREATE DATABASE "{part}" OWNER "{service}"')
                await migrate(self.url(service, part), SERVICES / service / "migrations")
                await self._admin.execute(f'ALTER DATABASE "{part}" RENAME TO "{name}"')
        finally:
            await self._admin.execute("SELECT pg_advisory_unlock(hashtext('isthmus.test.templates'))")
        self._templates[service] = name
        return name


def url_of(database: Database) -> str:
    """The address under which a test's database can be opened once more, as a relay does."""
    return str(database.pool._connect_args[0])  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue, reportUnknownArgumentType]
