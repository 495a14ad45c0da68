"""Is this database as old as Kafka's log says? One restored from an older backup is behind its own past.

The relay notes in ``relayed`` how far the broker has acknowledged, in the statement that takes the events out of the
outbox. So an event of this service that lies in the log from there on is still in the outbox; else this database
is an older one: others act on what it has forgotten, and whatever it did next would contradict it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from shared import dead_letters, kafka
from shared.health import Health
from shared.kafka import KafkaError, Place, Written
from shared.postgres import Connection, Database, is_infrastructure
from shared.telemetry import RETRIES, log
from shared.topics import DOMAIN_TOPICS
from shared.topics import dead_letters as dead_letter_topic

BEHIND = 4  # exit code of a process whose database is behind its own past; 3 is uvicorn's for a start that failed
CHUNK = 5000  # records that are compared at once
FIRST_LOOK = 15.0  # seconds that a start waits for the comparison
SILENCE = 30.0  # seconds that Kafka may take for one answer, or for a chunk
SKEW = timedelta(minutes=10)  # that clocks of relays may differ by
SHOWN = 5  # events that the refusal names

RELAYED = "SELECT topic, partition, next_offset FROM relayed"
WAITING = "SELECT id FROM outbox WHERE id = ANY($1::uuid[])"
TO_ADOPT = "SELECT EXISTS (SELECT FROM log_to_adopt)"
ADOPT = """
WITH adopted AS (DELETE FROM log_to_adopt)
INSERT INTO relayed (topic, partition, next_offset)
SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[])
ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset
"""


@dataclass(frozen=True)
class Said:
    """An event of this service as it lies in the log."""

    topic: str
    partition: int
    offset: int
    id: UUID
    key: str
    type: str
    recorded_at: datetime
    sent_at: datetime = field(repr=False)

    @property
    def place(self) -> Place:
        return self.topic, self.partition


class BehindError(Exception):
    """The log has events of this service that its database does not know; the message says what to do."""


def topics_of(service: str) -> list[str]:
    """The topics that a service's relay writes to; signals are sent without it."""
    return [topic.name for topic in (*DOMAIN_TOPICS, dead_letter_topic(service)) if topic.owner == service]


def said(service: str, record: Written) -> Said | None:
    """What ``service`` said with this record; None where another said it, or nobody can tell."""
    headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    sent_at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    try:
        if record.topic == dead_letter_topic(service).name:
            id_, recorded_at = dead_letters.identity(service, headers), sent_at
        elif headers["ce_source"] == f"/isthmus/{service}" and "dlq_topic" not in headers:
            id_, recorded_at = UUID(headers["ce_id"]), datetime.fromisoformat(headers["ce_time"])
        else:
            return None
    except (KeyError, ValueError):
        return None
    if recorded_at.tzinfo is None:
        return None
    key, type_ = (record.key or b"").decode(errors="replace"), headers.get("ce_type", "")
    return Said(record.topic, record.partition, record.offset, id_, key, type_, recorded_at, sent_at)


def unknown(events: Iterable[Said], relayed: Mapping[Place, int], waiting: set[UUID]) -> list[Said]:
    """The events that lie beyond what was ``relayed`` and do not wait in the outbox."""
    return [event for event in events if event.offset >= relayed.get(event.place, 0) and event.id not in waiting]


@dataclass(frozen=True)
class Ahead:
    """Events that the log has and the database does not know, found in some of what was to be read."""

    events: Sequence[Said]
    unread: int  # records that are not read yet
    fresh: bool  # nothing was ever sent from this database


def refusal(service: str, ahead: Ahead) -> str:
    """What an operator must know to go on."""
    number = f"at least {len(ahead.events)}" if ahead.unread else f"{len(ahead.events)}"
    why = (
        "Nothing was ever sent from it: it is a fresh database beside an old log, or the log is another platform's"
        if ahead.fresh
        else "It was restored from an older backup or without its last WAL, or a replica that lagged was promoted"
    )
    return (
        f"the database of {service} is behind its own past: Kafka's log has {number} events of {service} that it does "
        f"not know. {why}. Nothing is sent or consumed, and this process ends. Starting it again changes nothing: what "
        f"to do is in docs/how-to/restore.md. `python -m services.{service} past` lists the events"
    )


def described(event: Said) -> dict[str, Any]:
    """An event as a line of JSON; the key is an id or a SKU."""
    return {
        "topic": event.topic, "partition": event.partition, "offset": event.offset, "key": event.key,
        "type": event.type, "recorded_at": event.recorded_at.isoformat(), "id": str(event.id),
    }  # fmt: skip


class Past:
    """Compares a service's database with what Kafka's log has of the service."""

    def __init__(self, service: str, topics: Sequence[str], database: Database, bootstrap_servers: str, health: Health):
        self._service = service
        self._topics = topics
        self._database = database
        self._bootstrap_servers = bootstrap_servers
        self._health = health
        self._ended = asyncio.Event()  # found well, found behind, or stopped
        self._compared = False
        self._lost: list[str] = []
        self.behind: BehindError | None = None
        self.on_behind: Callable[[], None] = lambda: None
        health.ready_when("past", self._unready)

    def stop(self) -> None:
        self._ended.set()

    async def compared(self) -> bool:
        """Wait until the database was found to be in order; False if that will not be any more."""
        await self._ended.wait()
        return self._compared and self.behind is None

    async def first_look(self) -> None:
        """Before anything else is begun; raises BehindError. A Kafka that does not answer is not waited for."""
        try:
            await asyncio.wait_for(self.check(self._beat), FIRST_LOOK)
        except Exception as error:
            if not (isinstance(error, KafkaError) or is_infrastructure(error)):
                raise
            log.warning("not yet compared with Kafka's log; only HTTP is served until then", reason=repr(error))

    async def run(self) -> None:
        """Compare as soon as Kafka can be asked."""
        while not self._ended.is_set():
            self._beat()
            try:
                await self.check(self._beat)
            except BehindError:
                break
            except Exception as error:
                known = isinstance(error, KafkaError) or is_infrastructure(error)
                report = log.warning if known else log.exception
                report("not yet compared with Kafka's log", reason=f"{type(error).__name__}: {error}")
                RETRIES.labels("past").inc()
                try:
                    await asyncio.wait_for(self._ended.wait(), 2)
                except TimeoutError:
                    continue
        self._health.ended("past")

    async def before_sending(self, connection: Connection, beat: Callable[[], None]) -> None:
        """For the holder of the relay's lock: take the log as it is if that is due; then as ``check``."""
        if await connection.fetchval(TO_ADOPT):
            ends = {place: end for place, (_, end) in (await self._bounds()).items()}
            topics, partitions = [topic for topic, _ in ends], [partition for _, partition in ends]
            await connection.execute(ADOPT, topics, partitions, list(ends.values()))
            log.warning("takes Kafka's log as it is: before, it was not noted what went there", ends=str(ends))
        await self.check(beat)

    async def check(self, beat: Callable[[], None]) -> None:
        """Raises BehindError; and KafkaError or TimeoutError while Kafka cannot be asked."""
        async with aclosing(self.ahead(beat)) as found:
            async for ahead in found:
                if self.behind is None:
                    self.behind = BehindError(refusal(self._service, ahead))
                    log.error(str(self.behind), ahead=dict(Counter(one.topic for one in ahead.events)),
                              first=[described(one) for one in ahead.events[:SHOWN]])  # fmt: skip
                    self._ended.set()
                    self.on_behind()
                raise self.behind
        self._compared = True
        self._ended.set()

    async def ahead(self, beat: Callable[[], None]) -> AsyncGenerator[Ahead]:
        """What the log has of this service that the database does not know, in pieces; nothing where all is well.

        Kafka is read first and the database afterwards, so that another replica may send meanwhile.
        """
        relayed, adopts = await self._relayed()
        bounds = await self._bounds()
        self._compare_ends(relayed, bounds)
        if adopts:
            return  # what was sent is not known: the next holder of the relay's lock begins anew
        begin = {place: max(first, relayed.get(place, 0)) for place, (first, _) in bounds.items()}
        end = {place: last for place, (_, last) in bounds.items()}
        unread = sum(max(0, end[place] - at) for place, at in begin.items())
        async for records in self._chunks(begin, end, beat):
            unread -= len(records)
            events = await self._unknown([one for record in records if (one := said(self._service, record))], beat)
            if events:
                yield Ahead(events, unread, fresh=not relayed)

    async def _unknown(self, events: Sequence[Said], beat: Callable[[], None]) -> list[Said]:
        if not events:
            return []
        async with self._database.reading() as db, db.transaction(isolation="repeatable_read", readonly=True):
            relayed, adopts = await _load(db)
            waiting = {row["id"] for row in await db.fetch(WAITING, [event.id for event in events])}
        suspects = [] if adopts else unknown(events, relayed, waiting)
        if not suspects:
            return []
        # A relay's repeat may come late: its process was killed, and the broker took its last request after those of
        # the next relay. Then the event lies in the log before, too.
        since: dict[Place, datetime] = {}
        for one in suspects:
            since[one.place] = min(since.get(one.place, one.sent_at), one.sent_at, one.recorded_at)
        asked = {place: at - SKEW for place, at in since.items() if place in relayed}
        begin = await asyncio.wait_for(kafka.offsets_since(self._bootstrap_servers, asked), SILENCE) if asked else {}
        before: set[tuple[Place, UUID]] = set()
        async for records in self._chunks(begin, {place: relayed[place] for place in begin}, beat):
            before |= {(one.place, one.id) for record in records if (one := said(self._service, record))}
        return [one for one in suspects if (one.place, one.id) not in before]

    def _compare_ends(self, relayed: Mapping[Place, int], bounds: Mapping[Place, tuple[int, int]]) -> None:
        """The other way round: a log that ends before what it had acknowledged has lost events for good."""
        ends = {place: bounds[place][1] if place in bounds else 0 for place in relayed if place[0] in self._topics}
        self._lost = [
            f"{place}: sent up to {relayed[place]}, the log ends at {end}"
            for place, end in ends.items()
            if end < relayed[place]
        ]
        if self._lost:
            log.error("Kafka's log has lost events of this service, or this is another Kafka; see "
                      "docs/how-to/restore.md", lost=self._lost[:SHOWN], partitions=len(self._lost))  # fmt: skip

    async def verdict(self, missing: int) -> str:
        """In words, after all of ``ahead`` was read and counted."""
        if missing:
            return f"BEHIND: the log has {missing} events that this database does not know; see docs/how-to/restore.md"
        if self._lost:
            return f"the log has lost events that were sent: {self._lost}"
        _, adopts = await self._relayed()
        if adopts:
            return "nothing to compare with yet: the next relay takes the log as it is, and notes from there on"
        return "in order: the log has nothing of this service that its database does not know"

    async def _relayed(self) -> tuple[dict[Place, int], bool]:
        async with self._database.reading() as db:
            return await _load(db)

    async def _bounds(self) -> dict[Place, tuple[int, int]]:
        return await asyncio.wait_for(kafka.bounds(self._bootstrap_servers, self._topics), SILENCE)

    async def _chunks(
        self, begin: Mapping[Place, int], end: Mapping[Place, int], beat: Callable[[], None]
    ) -> AsyncGenerator[list[Written]]:
        """Raises TimeoutError when Kafka falls silent."""
        total = sum(max(0, end[place] - at) for place, at in begin.items())
        if not total:
            return
        done = 0
        async with aclosing(kafka.read_range(self._bootstrap_servers, begin, end)) as records:
            while chunk := await asyncio.wait_for(_take(records, CHUNK), SILENCE):
                beat()
                done += len(chunk)
                if total > CHUNK:
                    log.info("compares with Kafka's log", read=done, of=total)
                yield chunk

    async def _unready(self) -> str | None:
        if self._lost:
            return f"Kafka's log ends before what this service has sent: {self._lost[:SHOWN]}"
        return None if self._compared else "not yet compared with Kafka's log: nothing is consumed or sent"

    def _beat(self) -> None:
        self._health.beat("past")


async def show(service: str, database_url: str, bootstrap_servers: str) -> int:
    """Print every missing event as a line of JSON, and the verdict on standard error; returns the exit code.

    0: nothing is missing; 4: the database is behind; 1: Kafka or the database cannot be asked.
    """

    def no_beat() -> None:
        return

    try:
        database = await Database.open(database_url, max_size=2)
        past = Past(service, topics_of(service), database, bootstrap_servers, Health())
        number = 0
        async with aclosing(past.ahead(no_beat)) as found:
            async for ahead in found:
                number += len(ahead.events)
                sys.stdout.writelines(f"{orjson.dumps(described(one)).decode()}\n" for one in ahead.events)
        verdict = await past.verdict(number)
        await database.close()
    except (KafkaError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        sys.stderr.write(f"{service}: cannot be compared now: {type(error).__name__}: {error}\n")
        return 1
    sys.stderr.write(f"{service}: {verdict}\n")
    return BEHIND if number else 0


async def _load(db: Connection) -> tuple[dict[Place, int], bool]:
    relayed = {(row["topic"], row["partition"]): row["next_offset"] for row in await db.fetch(RELAYED)}
    return relayed, bool(await db.fetchval(TO_ADOPT))


async def _take(records: AsyncGenerator[Written], number: int) -> list[Written]:
    """So many, or what is left."""
    taken: list[Written] = []
    async for record in records:
        taken.append(record)
        if len(taken) == number:
            break
    return taken
