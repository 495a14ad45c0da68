"""Migrations: plain .sql files in order, each once, each in its own transaction.

Migrations expand first and contract a release later, so that old and new processes can run side by side.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import asyncpg

from shared.telemetry import log

KERNEL = Path(__file__).parent / "migrations"

TABLE = """
CREATE TABLE IF NOT EXISTS migrations (
    name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
"""


class MigrationError(Exception):
    """A migration that was applied has been changed since: write a new one instead."""


async def migrate(database_url: str, service: Path) -> list[str]:
    """Bring a service's database up to date; returns the names of the migrations applied. Safe to run concurrently."""
    done: list[str] = []
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SELECT pg_advisory_lock(hashtext('isthmus.migrate'))")
        await connection.execute(TABLE)
        applied = {
            row["name"]: row["checksum"] for row in await connection.fetch("SELECT name, checksum FROM migrations")
        }
        for origin, folder in (("kernel", KERNEL), ("service", service)):
            for path in sorted(folder.glob("*.sql")):
                name, sql = f"{origin}/{path.name}", path.read_text()
                checksum = hashlib.sha256(sql.encode()).hexdigest()
                if name in applied:
                    if applied[name] != checksum:
                        raise MigrationError(f"{name} was changed after it was applied; restore it and add a new file")
                    continue
                async with connection.transaction():
                    await connection.execute(sql)
                    await connection.execute("INSERT INTO migrations (name, checksum) VALUES ($1, $2)", name, checksum)
                done.append(name)
                log.info("migration applied", migration=name)
    finally:
        await connection.close()
    return done
