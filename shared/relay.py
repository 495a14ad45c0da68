"""Outbox to Kafka, in order per key, at least once; consumers drop what they have seen.

One relay per database is active, by an advisory lock; the others wait for it. A relay in the same process is woken
at once; from elsewhere by NOTIFY, which is only a hint; and it looks twice a second anyway.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import orjson

from shared.crash import crash_point
from shared.envelope import Headers, headers_for
from shared.health import Health
from shared.kafka import (
    Batch,
    KafkaError,
    Place,
    Producer,
    UnknownTopicOrPartitionError,
    acknowledged_at,
)
from shared.messages import Topic
from shared.past import BehindError
from shared.postgres import Connection, Row, is_infrastructure
from shared.telemetry import OUTBOX_AGE_SECONDS, OUTBOX_ROWS, RELAY_ACTIVE, RELAY_BLOCKED, RELAYED, RETRIES, log
from shared.topics import ALL_TOPICS

PASS = 1000  # events per pass
PAUSE = 0.06  # seconds between two passes, at most
BLOCKED_SECONDS = 10.0
SILENT_SECONDS = 20.0  # longer than a producer waits for one answer
LOCK = "SELECT pg_try_advisory_lock(hashtext('isthmus.relay'))"
UNSENT = """
SELECT * FROM outbox
WHERE NOT EXISTS (SELECT FROM unnest($2::text[], $3::text[]) AS b (topic, key)
                  WHERE b.topic = aggregatetype AND b.key IN (aggregateid, '*'))
ORDER BY position LIMIT $1
"""
# In one statement, so that what is in neither place was never here: see shared/past.py.
SENT = """
WITH sent AS (DELETE FROM outbox WHERE position = ANY($1::bigint[]))
INSERT INTO relayed (topic, partition, next_offset)
SELECT * FROM unnest($2::text[], $3::int[], $4::bigint[])
ON CONFLICT (topic, partition) DO UPDATE SET next_offset = greatest(relayed.next_offset, excluded.next_offset)
"""
NOTES = "SET isthmus.notes_relayed = on"  # or the deletion is taken for one by a release that does not
WAITING = "SELECT count(*) AS rows, coalesce(extract(epoch FROM now() - min(recorded_at)), 0)::float AS age FROM outbox"
CHANNEL = "isthmus_outbox"
Sending = tuple[
    list[int], "asyncio.Future[Any]"
]  # positions in the outbox, for one partition; all of them arrive or none
LIMITS = {topic.name: topic.max_message_bytes for topic in ALL_TOPICS}


class Relay:
    """Sends what transactions left in the outbox. ``wake`` it after a commit."""

    def __init__(self, database_url: str, bootstrap_servers: str, health: Health):
        self._url = database_url
        self._bootstrap_servers = bootstrap_servers
        self._health = health
        self._awake = asyncio.Event()
        self._stopping = False
        self._counted_at = 0.0
        self._waiting: Connection | None = None  # for the lock; hints go over it
        self._turn = asyncio.Lock()  # a connection bears one statement at a time
        self._active = False
        self._blocked: dict[tuple[str, str], str] = {}  # topic and key, or * for all of the topic; and why
        self._blocked_at = 0.0
        self._hint: asyncio.Task[None] | None = None
        self.before_sending: Callable[[Connection, Callable[[], None]], Awaitable[None]] = _go_on

    @property
    def active(self) -> bool:
        """Whether this process is the relay of its database."""
        return self._active

    @property
    def blocked(self) -> dict[tuple[str, str], str]:
        """Topics and keys (``*``: all of the topic) that wait, and why; the active relay knows them."""
        return dict(self._blocked)

    def wake(self) -> None:
        """There is something to send; if another process holds the relay, tell that one, at most 50 times a second."""
        if self._active:
            self._awake.set()
        elif self._waiting is not None and (self._hint is None or self._hint.done()):
            self._hint = asyncio.get_running_loop().create_task(self._notify())

    async def _notify(self) -> None:
        await asyncio.sleep(0.02)
        async with self._turn:
            if self._waiting is None:  # it has become the relay itself, or begins anew
                self._awake.set()
                return
            try:
                await self._waiting.execute(f"NOTIFY {CHANNEL}")
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
            except BehindError:
                break  # the process ends: see shared/app.py
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
        connection = await asyncpg.connect(self._url, timeout=10, command_timeout=30)
        try:
            # A lost deletion only means a repeat, which consumers drop: no need to wait for the disk.
            await connection.execute("SET synchronous_commit = off")
            await connection.execute(NOTES)
            while not await self._locked(connection):
                self._beat()
                if self._stopping:
                    return
                await asyncio.sleep(1.0)
            await self.before_sending(connection, self._beat)
            await connection.add_listener(CHANNEL, self._hinted)
            producer = Producer(self._bootstrap_servers)
            try:
                await producer.start()
                self._active = True
                RELAY_ACTIVE.set(1)
                await self._send_all(connection, producer)
            finally:
                self._active = False
                RELAY_ACTIVE.set(0)
                await producer.stop()  # what it has not sent is still in the outbox
        finally:
            self._waiting = None
            await connection.close(timeout=5)

    async def _locked(self, connection: Connection) -> bool:
        """Whether this is the relay now; until then hints go over its connection."""
        async with self._turn:
            locked = bool(await connection.fetchval(LOCK))
            self._waiting = None if locked else connection
            return locked

    async def _send_all(self, connection: Connection, producer: Producer) -> None:
        self._blocked.clear()
        while True:
            self._beat()
            self._awake.clear()
            self._unblock()
            started = time.monotonic()
            rows = await connection.fetch(
                UNSENT, PASS, [topic for topic, _ in self._blocked], [k for _, k in self._blocked]
            )
            if rows:
                await self._send(connection, producer, rows)
            elif self._stopping:
                return
            await self._count(connection)
            if rows:  # as much time again for the others: the busier the machine, the more there is in the next pass
                await asyncio.sleep(min(time.monotonic() - started, PAUSE))
            if len(rows) < PASS and not self._stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._awake.wait(), 0.5)

    async def _send(self, connection: Connection, producer: Producer, rows: Sequence[Row]) -> None:
        """Send one pass. A key whose event cannot be sent waits with all its later events; the other keys go on."""
        sending: list[Sending] = []
        filling: dict[Place, tuple[list[int], Batch]] = {}

        async def begin(place: Place) -> None:
            crash_point("relay before send")
            positions, batch = filling.pop(place)
            sending.append((positions, await producer.send(place, batch)))

        try:
            for row in rows:
                topic, key = self._key(row)
                if {(topic, key), (topic, "*")} & self._blocked.keys():
                    continue
                headers = _headers(row)
                if _size(row, headers) > LIMITS.get(topic, Topic.max_message_bytes):
                    # before the broker says so, when later events are under way
                    self._block(row, key, "too large for Kafka")
                    continue
                try:
                    place = await producer.place(topic, key)
                except UnknownTopicOrPartitionError:
                    self._block(row, "*", "no such topic; create it by `python -m shared.admin topics`")
                    continue
                if place in filling and not filling[place][1].add(key, row["payload"], headers):
                    await begin(place)
                if place not in filling:
                    filling[place] = ([], producer.batch())
                    filling[place][1].add(key, row["payload"], headers)
                filling[place][0].append(row["position"])
            for place in list(filling):
                await begin(place)
        finally:
            crash_point("relay sent")
            await self._acknowledged(connection, sending)

    async def _acknowledged(self, connection: Connection, sending: Sequence[Sending]) -> None:
        """Wait for the broker, and forget what it has. While it is away, the next producer waits for it."""
        waiting = {future for _, future in sending}
        heard_at, given_up = time.monotonic(), ""
        while waiting and not given_up:
            done, waiting = await asyncio.wait(waiting, timeout=5)
            self._beat()
            if done:
                heard_at = time.monotonic()
            if waiting and self._stopping:
                given_up = "stopped while the broker is away; the outbox keeps what it has not acknowledged"
            elif waiting and time.monotonic() - heard_at > SILENT_SECONDS:
                given_up = f"nothing was acknowledged for {SILENT_SECONDS:.0f} s; a new producer sends the rest again"
        sent: list[int] = []
        reached: dict[Place, int] = {}
        for positions, future in sending:
            if future.done() and future.exception() is None and (at := acknowledged_at(future.result())):
                place, offset = at
                sent += positions
                reached[place] = max(reached.get(place, 0), offset + len(positions))
        topics, partitions = [topic for topic, _ in reached], [partition for _, partition in reached]
        crash_point("relay acknowledged")
        await connection.execute(SENT, sent, topics, partitions, list(reached.values()))
        crash_point("relay forgot")
        RELAYED.inc(len(sent))
        if given_up:
            raise KafkaError(given_up)
        for _, future in sending:  # in doubt what came through: a new producer sends the rest again, in order
            future.result()
        if len(sent) < sum(len(positions) for positions, _ in sending):
            raise KafkaError("the broker has had events before and cannot say where they lie; they are sent again")

    def _key(self, row: Row) -> tuple[str, str]:
        return row["aggregatetype"], row["aggregateid"]

    def _block(self, row: Row, key: str, why: str) -> None:
        log.error("event cannot be sent, and its key waits", id=str(row["id"]), topic=row["aggregatetype"],
                  key=row["aggregateid"], bytes=len(row["payload"]), reason=why)  # fmt: skip
        self._blocked[row["aggregatetype"], key] = why
        self._blocked_at = time.monotonic()
        RELAY_BLOCKED.set(len(self._blocked))

    def _unblock(self) -> None:
        """Try again after a while: the topic may have been created, or its limit raised."""
        if self._blocked and time.monotonic() - self._blocked_at > BLOCKED_SECONDS:
            self._blocked.clear()
            RELAY_BLOCKED.set(0)

    async def _count(self, connection: Connection) -> None:
        if time.monotonic() - self._counted_at >= 2.0:
            self._counted_at = time.monotonic()
            waiting = await connection.fetchrow(WAITING)
            assert waiting is not None
            OUTBOX_ROWS.set(waiting["rows"])
            OUTBOX_AGE_SECONDS.set(waiting["age"])

    def _beat(self) -> None:
        self._health.beat("relay")


async def _go_on(_connection: Connection, _beat: Callable[[], None]) -> None:
    return


def _size(row: Row, headers: Headers) -> int:
    """The bytes of a batch of this record alone, rounded up a little."""
    content = len(row["payload"]) + len(row["aggregateid"].encode())
    return content + sum(len(name.encode()) + len(value) + 10 for name, value in headers) + 100


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
