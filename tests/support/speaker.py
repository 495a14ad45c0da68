"""A service of its own, that nobody else knows: what it says goes to Kafka through its outbox, and can be backed up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

from shared.dead_letters import put_aside
from shared.envelope import Headers
from shared.events.order import OrderEvent
from shared.health import Health
from shared.kafka import Producer, create_topics
from shared.messages import Cause, Topic
from shared.past import Past, Said
from shared.postgres import Database
from shared.relay import Relay
from shared.topics import dead_letters
from tests.support.databases import Databases, url_of
from tests.support.kernel import FakeRecord, value
from tests.support.orders import placed


@dataclass
class Speaker:
    """Has one topic and its dead letters."""

    topic: Topic[OrderEvent]
    kafka: str
    databases: Databases

    @staticmethod
    async def new(kafka: str, databases: Databases) -> Speaker:
        name = f"t{uuid4().hex[:12]}"
        topic = Topic[OrderEvent](
            f"test.{name}.v1", owner=name, key="order_id", union=OrderEvent, about="", partitions=3
        )
        await create_topics(kafka, [topic, dead_letters(name)])
        return Speaker(topic, kafka, databases)

    @property
    def name(self) -> str:
        return self.topic.owner

    def past(self, database: Database, health: Health | None = None) -> Past:
        topics = [self.topic.name, dead_letters(self.name).name]
        return Past(self.name, topics, database, self.kafka, health or Health())

    async def check(self, database: Database) -> None:
        await self.past(database).check(lambda: None)

    async def missing(self, database: Database) -> list[Said]:
        return [one async for ahead in self.past(database).ahead(lambda: None) for one in ahead.events]

    @asynccontextmanager
    async def relaying(self, database: Database) -> AsyncGenerator[Relay]:
        relay = Relay(url_of(database), self.kafka, Health())
        relay.before_sending = self.past(database).before_sending
        task = asyncio.create_task(relay.run())
        try:
            yield relay
        finally:
            relay.stop()
            await asyncio.wait([task], timeout=5)
            task.cancel()
            await asyncio.wait([task])

    async def say(self, database: Database, *sequences: int) -> list[UUID]:
        """Committed, and waiting in the outbox."""
        ids: list[UUID] = []
        for sequence in sequences:
            async with database.transaction() as tx:
                cause = Cause(id=uuid4(), correlation_id="test")
                ids.append(tx.publish(self.topic, placed(number=sequence), cause=cause, sequence=sequence))
        return ids

    async def sent(self, database: Database, *sequences: int) -> list[UUID]:
        """Said, and in the log."""
        async with self.relaying(database):
            ids = await self.say(database, *sequences)
            await until_empty(database)
        return ids

    async def put_aside(self, number: int, database: Database) -> None:
        """A dead letter, committed and waiting in the outbox."""
        poison = FakeRecord("elsewhere.v1", number, b"k", b"junk", [("ce_source", b"/isthmus/elsewhere")])
        async with database.transaction() as tx:
            await put_aside(tx, dead_letters(self.name).name, poison, service=self.name, consumer="eat", reason="")

    @asynccontextmanager
    async def backup(self, database: Database) -> AsyncGenerator[Callable[[], Database]]:
        """A copy of all that the database holds now."""
        url = url_of(database)
        await database.close()
        name = f"test_backup_{uuid4().hex[:12]}"
        source = url.rpartition("/")[2]
        await self.databases._admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}" OWNER inventory')
        database.pool = (await Database.open(url)).pool
        copy = await Database.open(self.databases.url("inventory", name))
        try:
            yield lambda: copy
        finally:
            copy.pool.terminate()
            await self.databases.drop(name)

    async def write(self, key: str, headers: Headers) -> None:
        """A record that is written past every outbox."""
        producer = Producer(self.kafka)
        await producer.start()
        await (await producer.send_one(self.topic.name, key, b"{}", headers))
        await producer.stop()


async def until_empty(database: Database) -> None:
    async def empty() -> bool:
        return not await value(database, "SELECT count(*) FROM outbox")

    await eventually(empty)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < until, "it did not come to that"
        await asyncio.sleep(0.03)
