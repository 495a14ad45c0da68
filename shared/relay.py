"""Outbox to Kafka, in order per key, at least once; consumers drop what they have seen.

One relay per database is active, by an advisory lock; the others wait for it. A relay in the same process is woken
at once; from elsewhere by NOTIFY, which is only a hint; and it looks twice a second anyway.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson

from shared.envelope import Headers, headers_for
from shared.health import Health
from shared.kafka import KafkaError, MessageSizeTooLargeError, Producer
from shared.messages import Topic
from shared.postgres import Connection, Row, is_infrastructure
from shared.telemetry import OUTBOX_AGE_SECONDS, OUTBOX_ROWS, RELAY_ACTIVE, RELAYED, RETRIES, log
from shared.topics import ALL_TOPICS

PASS = 1000  # events per pass
LOCK = "SELECT pg_try_advisory_lock(hashtext('isthmus.relay'))"
UNSENT = "SELECT * FROM outbox ORDER BY position LIMIT $1"
SENT = "DELETE FROM outbox WHERE position = ANY($1::bigint[])"
WAITING = "SELECT count(*) AS rows, coalesce(extract(epoch FROM now() - min(recorded_at)), 0)::float AS age FROM outbox"
CHANNEL = "isthmus_outbox"
LIMITS = {topic.name: topic.max_message_bytes for topic in ALL_TOPICS}


class Relay:
    """Sends what transactions left in the outbox. ``wake`` it after a commit."""

    def __init__(self, database_url: str, bootstrap_servers: str, health: Health):
        self._url = database_url
        self._bootstrap_servers = bootstrap_servers
        self._health = health
        self._awake = asyncio.Event()
        self._stopping = False
        self._notified_at = 0.0
        self._counted_at = 0.0
        self._connection: Connection | None = None
        self._active = False
        self._hint: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """There is something to send; if another process holds the relay, tell that one, at most 50 times a second."""
        if self._active:
            self._awake.set()
        elif self._connection is not None and (self._hint is None or self._hint.done()):
            self._hint = asyncio.get_running_loop().create_task(self._notify(self._connection))

    async def _notify(self, connection: Connection) -> None:
        await asyncio.sleep(0.02)
        try:
            await connection.execute(f"NOTIFY {CHANNEL}")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            return  # only a hint

    def _hinted(self, *_args: object) -> None:
        self._awake.set()

    def stop(self) -> None:
        """End once the outbox is empty, or cannot be emptied."""
        self._stopping = True
        self._awake.set()

    async def run(self) -> None:
        while not self._stopping:
            self._beat()
            try:
                await self._hold()
            except Exception as error:
                known = isinstance(error, KafkaError) or is_infrastructure(error)
                (log.warning if known else log.exception)(
                    "relay starts again", reason=f"{type(error).__name__}: {error}"
                )
                RETRIES.labels("relay").inc()
                await asyncio.sleep(0.5)
        self._health.ended("relay")

    async def _hold(self) -> None:
        """Wait for the lock, then send until stopped or until something fails."""
        self._connection = connection = await asyncpg.connect(self._url, timeout=10, command_timeout=30)
        try:
            # A lost deletion only means a repeat, which consumers drop: no need to wait for the disk.
            await connection.execute("SET synchronous_commit = off")
            while not await connection.fetchval(LOCK):
                self._beat()
                if self._stopping:
                    return
                await asyncio.sleep(1.0)
            await connection.add_listener(CHANNEL, self._hinted)
            producer = Producer(self._bootstrap_servers)
            await producer.start()
            try:
                self._active = True
                RELAY_ACTIVE.set(1)
                await self._send_all(connection, producer)
            finally:
                self._active = False
                RELAY_ACTIVE.set(0)
                await producer.stop()  # what it has not sent is still in the outbox
        finally:
            self._connection = None
            await connection.close(timeout=5)

    async def _send_all(self, connection: Connection, producer: Producer) -> None:
        while True:
            self._beat()
            self._awake.clear()
            rows = await connection.fetch(UNSENT, PASS)
            if rows:
                await self._send(connection, producer, rows)
            await self._count(connection)
            if len(rows) == PASS:
                continue
            if self._stopping and not rows:
                return
            if not rows:
                try:
                    await asyncio.wait_for(self._awake.wait(), 0.5)
                except TimeoutError:
                    continue

    async def _send(self, connection: Connection, producer: Producer, rows: Sequence[Row]) -> None:
        """Send one pass. A key whose event cannot be sent waits with all its later events; the other keys go on."""
        blocked: set[tuple[str, str]] = set()
        sending: list[tuple[int, asyncio.Future[Any]]] = []
        for row in rows:
            key = (row["aggregatetype"], row["aggregateid"])
            if key in blocked:
                continue
            headers = _headers(row)
            try:
                if _size(row, headers) > LIMITS.get(key[0], Topic.max_message_bytes):
                    raise MessageSizeTooLargeError  # before the broker says so, and later events are under way
                future = await producer.send(*key, row["payload"], headers)
            except MessageSizeTooLargeError:
                log.error("event too large for Kafka; its key waits", id=str(row["id"]), topic=key[0], key=key[1],
                          bytes=len(row["payload"]))  # fmt: skip
                blocked.add(key)
            else:
                sending.append((row["position"], future))
        results = await asyncio.gather(*(future for _, future in sending), return_exceptions=True)
        sent = [position for (position, _), result in zip(sending, results, strict=True) if not _failed(result)]
        await connection.execute(SENT, sent)
        RELAYED.inc(len(sent))
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:  # in doubt what came through: a new producer sends the rest again, in order
            raise failures[0]
        if not sent:
            await asyncio.sleep(1.0)

    async def _count(self, connection: Connection) -> None:
        if time.monotonic() - self._counted_at >= 2.0:
            self._counted_at = time.monotonic()
            waiting = await connection.fetchrow(WAITING)
            assert waiting is not None
            OUTBOX_ROWS.set(waiting["rows"])
            OUTBOX_AGE_SECONDS.set(waiting["age"])

    def _beat(self) -> None:
        self._health.beat("relay")


def _size(row: Row, headers: Headers) -> int:
    """The bytes of a batch of this record alone, rounded up a little."""
    content = len(row["payload"]) + len(row["aggregateid"].encode())
    return content + sum(len(name.encode()) + len(value) + 10 for name, value in headers) + 100


def _failed(result: object) -> bool:
    return isinstance(result, BaseException)


def _headers(row: Row) -> list[tuple[str, bytes]]:
    if row["headers"] is not None:
        return [(name, base64.b64decode(value)) for name, value in _pairs(row["headers"])]
    return headers_for(
        id=row["id"], source=row["source"], type=row["type"], recorded_at=row["recorded_at"], key=row["aggregateid"],
        sequence=row["sequence"], correlation_id=row["correlationid"], causation_id=row["causationid"],
        traceparent=row["traceparent"],
    )  # fmt: skip


def _pairs(headers: str) -> list[tuple[str, str]]:
    return [(name, value) for name, value in orjson.loads(headers)]
