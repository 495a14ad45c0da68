"""The SQLite file behind a sandbox: what it knows, and the queue of its webhooks."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MERCHANT_SCHEMA = Path(__file__).with_name("merchant.sql")  # idempotency keys and webhooks


class Database:
    """One connection; what a transaction has committed survives kill -9."""

    def __init__(self, path: Path, *schemas: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        # NORMAL in WAL hands each commit to the kernel without an fsync: it survives the death of the process, which is
        # what a sandbox is put through. Only a power cut could lose the last commits (never corrupt the file), and an
        # fsync per request would cap the throughput instead of the services under test.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        for schema in schemas:
            self._connection.executescript(schema.read_text())

    @contextmanager
    def transaction(self) -> Generator[None]:
        with self._connection:  # commits, or rolls back
            self._connection.execute("BEGIN IMMEDIATE")
            yield

    def execute(self, sql: str, *arguments: Any) -> int:
        """Return the number of rows changed."""
        return self._connection.execute(sql, arguments).rowcount

    def rows(self, sql: str, *arguments: Any) -> list[sqlite3.Row]:
        return self._connection.execute(sql, arguments).fetchall()

    def row(self, sql: str, *arguments: Any) -> sqlite3.Row | None:
        return self._connection.execute(sql, arguments).fetchone()

    def close(self) -> None:
        self._connection.close()
