"""What Faust passes over is read from the log: none twice and none left out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest_asyncio

from deploy.local.stack import Stack
from services.pricing.demand.engine import Engine
from services.pricing.demand.reader import Reader
from shared.envelope import Record
from shared.events.pricing import DemandEvent, DemandMeasured
from shared.kafka import Producer, create_topics, read_all
from shared.messages import Topic

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest_asyncio.fixture
async def ten(infrastructure: Stack) -> AsyncIterator[tuple[str, Topic[DemandEvent]]]:
    """A topic of one partition with ten records."""
    topic = Topic[DemandEvent](f"test.{uuid4().hex}", "pricing", "sku", DemandMeasured, "ten", partitions=1)
    await create_topics(infrastructure.bootstrap_servers, [topic])
    producer = Producer(infrastructure.bootstrap_servers)
    await producer.start()
    for number in range(10):
        await (await producer.send_one(topic.name, "k", str(number).encode(), []))
    await producer.stop()
    yield infrastructure.bootstrap_servers, topic


async def test_a_hole_is_read_from_the_log_and_a_repeat_is_dropped(ten: tuple[str, Topic[DemandEvent]]) -> None:
    servers, topic = ten
    log = await read_all(servers, [topic])
    engine = Engine(
        f"test-{uuid4().hex}", servers, generation=1, member="test", replication_factor=1, keyed_by=topic,
        on_recovered=lambda: None,
    )  # fmt: skip
    handled: list[int] = []

    async def handle(record: Record) -> None:
        handled.append(record.offset)

    engine._next[topic.name, 0] = 2
    for offset in (2, 3, 3, 7, 5, 8):
        await engine._take(log[offset], handle)
    assert handled == [2, 3, 4, 5, 6, 7, 8]


async def test_a_group_that_has_committed_nothing_begins_with_the_log(ten: tuple[str, Topic[DemandEvent]]) -> None:
    servers, topic = ten
    reader = Reader(servers, f"test-{uuid4().hex}")
    place = (topic.name, 0)
    assert await reader.left_at([place]) == {place: 0}
    assert [record.offset for record in await reader.between(place, 4, 6)] == [4, 5]
