"""A service's own database: the pool, transactions, and events published inside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import asyncpg
import orjson

from shared.crash import crash_point
from shared.messages import Cause, E, Topic, event_id

if TYPE_CHECKING:  # generic for the type checker only
    Connection = asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool
Row = asyncpg.Record

# Errors that say nothing about the message at hand: the same work is tried again, and nothing is set aside for them.
INFRASTRUCTURE_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
)


def is_infrastructure(error: BaseException) -> bool:
    """Whether ``error`` speaks of the machinery rather than of the work at hand."""
    # asyncpg's refusal of an argument (a number out of range, a wrong type) is an InterfaceError too, and a ValueError
    return isinstance(error, INFRASTRUCTURE_ERRORS) and not isinstance(error, ValueError)


WRITE_OUTBOX = """
INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, sequence,
                    correlationid, causationid, traceparent, source)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bigint[], $7::text[], $8::text[],
                     $9::text[], $10::text[])
"""

WRITE_DEAD_LETTERS = """
INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, sequence,
                    correlationid, traceparent, source, headers)
VALUES ($1, $2, $3, 'dead-letter', $4, 0, '', '', '', $5)
"""


@dataclass(frozen=True)
class _Outgoing:
    id: UUID
    topic: str
    key: str
    type: str
    payload: bytes
    sequence: int
    correlation_id: str
    causation_id: str
    traceparent: str
    source: str


class Tx:
    """One transaction: queries on ``db``, events by ``publish``; both take effect together, or neither does."""

    def __init__(self, connection: Connection):
        self.db = connection
        self._outgoing: list[_Outgoing] = []
        self._ordinals: Counter[tuple[UUID, str, str]] = Counter()
        self._after_commit: list[Callable[[], None]] = []
        self.wrote_outbox = False

    def publish(self, topic: Topic[E], event: E, *, cause: Cause, sequence: int) -> UUID:
        """Say ``event`` on ``topic`` when this transaction commits.

        ``sequence`` is the version that the event gives its entity, raised under the lock of the entity's row: it
        must follow the last one without a gap. Returns the event's id, derived from its cause.
        """
        type_, key = topic.type_of(type(event)), topic.key_of(event)
        ordinal = self._ordinals[cause.id, type_, key]
        self._ordinals[cause.id, type_, key] += 1
        id_ = event_id(cause.id, type_, key, ordinal)
        self._outgoing.append(
            _Outgoing(
                id=id_,
                topic=topic.name,
                key=key,
                type=type_,
                payload=event.model_dump_json(exclude_none=True).encode(),
                sequence=sequence,
                correlation_id=cause.correlation_id,
                causation_id=str(cause.id),
                traceparent=str(cause.trace),
                source=topic.source,
            )
        )
        return id_

    async def dead_letter(self, topic: str, key: str, payload: bytes, headers: list[list[str]], dead_id: UUID) -> None:
        """Put a message aside, byte for byte; ``headers`` are pairs of name and base64 value."""
        await self.db.execute(WRITE_DEAD_LETTERS, dead_id, topic, key, payload, headers)
        self.wrote_outbox = True

    def after_commit(self, action: Callable[[], None]) -> None:
        """Run ``action`` once this transaction has committed: wake-ups, never effects."""
        self._after_commit.append(action)

    async def flush(self) -> None:
        """Write what was published, in one statement; last of all, so that outbox positions follow the row locks."""
        if self._outgoing:
            columns = zip(*(vars(outgoing).values() for outgoing in self._outgoing), strict=True)
            await self.db.execute(WRITE_OUTBOX, *(list(column) for column in columns))
            self._outgoing.clear()
            self.wrote_outbox = True

    def committed(self) -> None:
        for action in self._after_commit:
            action()


class Database:
    """The pool of one service. ``on_outbox`` is called after each commit that left something to relay."""

    def __init__(self, pool: Pool):
        self.pool = pool
        self.on_outbox: Callable[[], None] = lambda: None

    @staticmethod
    async def open(url: str, *, max_size: int = 12) -> Database:
        pool = await asyncpg.create_pool(
            url, min_size=1, max_size=max_size, init=prepare_connection, reset=_nothing, command_timeout=30,
            server_settings={"application_name": "isthmus", "timezone": "UTC"},
        )  # fmt: skip
        return Database(pool)

    async def close(self) -> None:
        await self.pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Tx]:
        """A transaction that commits, with all it published, when the block ends without an exception."""
        async with self.pool.acquire() as connection:
            tx = Tx(cast(Connection, connection))
            async with connection.transaction():
                yield tx
                await tx.flush()
                crash_point("transaction before commit")
        crash_point("transaction after commit")
        tx.committed()
        if tx.wrote_outbox:
            self.on_outbox()

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[Connection]:
        """A connection for queries that change nothing."""
        async with self.pool.acquire() as connection:
            yield cast(Connection, connection)


async def prepare_connection(connection: Any) -> None:
    """JSON goes in and comes out as Python values."""
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, encoder=_to_json, decoder=orjson.loads,
            schema="pg_catalog",
        )  # fmt: skip


async def _nothing(_connection: Any) -> None:
    """Nothing of the session is ever changed, so nothing is reset between two uses: it would cost two round trips."""


def columns(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Rows as a statement with ``unnest`` wants them; there must be one at least."""
    return [list(column) for column in zip(*rows, strict=True)]


def _to_json(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()
