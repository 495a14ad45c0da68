"""Messages, records and consumer loops for tests of what services do with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from shared import progress
from shared.consume import Consumers, Handle, Subscription
from shared.envelope import headers_for
from shared.health import Health
from shared.loop import ConsumerLoop, Wiring
from shared.messages import E, Message, Topic
from shared.postgres import Database, Row
from shared.topics import dead_letters


@dataclass
class FakeRecord:
    """A record as a Kafka consumer hands it over."""

    topic: str
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, Any]] = ()
    partition: int = 0


def message(topic: Topic[E], event: E, *, sequence: int = 1, id: UUID | None = None) -> Message[E]:
    own = id or uuid4()
    return Message(
        id=own, correlation_id="test", event=event, topic=topic.name, key=topic.key_of(event), sequence=sequence,
        recorded_at=datetime.now(UTC),
    )  # fmt: skip


def record(
    topic: Topic[E], event: E, offset: int, *, id: UUID | None = None, sequence: int = 1, partition: int = 0,
    at: datetime | None = None, headers: Mapping[str, bytes | None] | None = None,
) -> FakeRecord:  # fmt: skip
    """The event as it lies in the log; ``headers`` replaces some; None leaves one out."""
    own: dict[str, Any] = dict(
        headers_for(
            id=id or uuid4(), source=topic.source, type=topic.type_of(type(event)), recorded_at=at or datetime.now(UTC),
            key=topic.key_of(event), sequence=sequence, correlation_id="test", causation_id=None,
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
    )  # fmt: skip
    pairs = [(name, value) for name, value in (own | dict(headers or {})).items() if value is not None]
    body = event.model_dump_json(exclude_none=True).encode()
    return FakeRecord(topic.name, offset, topic.key_of(event).encode(), body, pairs, partition)


def wiring(
    database: Database, *, service: str = "test", bootstrap_servers: str = "", replica: str = "test-0"
) -> Wiring:
    return Wiring(service, replica, bootstrap_servers, dead_letters(service), database, Health())


@dataclass
class Fed:
    """A consumer loop that is fed by hand instead of by Kafka; everything else is real."""

    database: Database
    handle: Handle[Any]
    topics: Sequence[Topic[Any]]
    name: str = "fed"
    service: str = "test"
    hears: frozenset[str] | None = None
    loop: ConsumerLoop = field(init=False)

    def __post_init__(self) -> None:
        own = wiring(self.database, service=self.service)
        self.loop = ConsumerLoop(Subscription(self.name, self.topics, self.handle, hears=self.hears), own)

    async def start(self) -> Fed:
        """Take up where the database says it was left, as after an assignment of partitions 0 and 1."""
        places = {(topic.name, partition): 0 for topic in self.topics for partition in (0, 1)}
        async with self.database.transaction() as tx:
            await progress.start(tx.db, self.name, places)
            self.loop._positions.at = await progress.load(tx.db, self.name)
        return self

    async def take(self, *records: FakeRecord) -> None:
        """A poll's worth, filtered and applied as the loop does it."""
        fresh = self.loop._positions.following(records)
        if fresh:
            await self.loop._take(fresh)


async def deliver(database: Database, consumers: Consumers, name: str, *messages: Message[Any]) -> None:
    """One batch to the named handler, in one transaction."""
    (subscription,) = [one for one in consumers.subscriptions if one.name == name]
    async with database.transaction() as tx:
        await subscription.handle(tx, list(messages))


async def rows(database: Database, query: str, *arguments: Any) -> list[Row]:
    async with database.reading() as db:
        return await db.fetch(query, *arguments)


async def value(database: Database, query: str, *arguments: Any) -> Any:
    async with database.reading() as db:
        return await db.fetchval(query, *arguments)


async def said(database: Database) -> list[tuple[str, str, int]]:
    """What waits in the outbox: class of event, key and sequence."""
    found = await rows(database, "SELECT type, aggregateid, sequence FROM outbox ORDER BY position")
    return [(row["type"].split(".")[2] if "." in row["type"] else row["type"], row["aggregateid"], row["sequence"])
            for row in found]  # fmt: skip
