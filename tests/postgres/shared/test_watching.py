"""Tables against the log, over a real Kafka: what was lost is seen, what is only late is not."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import pytest

from deploy.local.stack import Stack
from shared.drift import Versions, Watch
from shared.envelope import headers_for
from shared.events.order import OrderEvent
from shared.kafka import Producer, create_topics
from shared.messages import Topic
from shared.postgres import Database
from tests.support.orders import NOW, order_id, placed

OF_HOLDS = "SELECT order_id AS key, version FROM holds WHERE order_id = ANY($1::uuid[])"


class Warehouse:
    """An inventory whose holds are said on a topic of the test's own."""

    def __init__(self, database: Database, bootstrap_servers: str, topic: Topic[OrderEvent]):
        self.database, self.servers, self.topic, self.leads = database, bootstrap_servers, topic, True
        self.watch = Watch([Versions(topic, OF_HOLDS)], database, bootstrap_servers, lambda: self.leads)

    async def has(self, version: int) -> None:
        async with self.database.transaction() as tx:
            await tx.db.execute("INSERT INTO holds VALUES ($1, 'held', $2) "
                                "ON CONFLICT (order_id) DO UPDATE SET version = $2", order_id(), version)  # fmt: skip

    async def says(self, *sequences: int, keys: Sequence[str] = ()) -> None:
        producer = Producer(self.servers)
        await producer.start()
        for sequence in sequences:
            for key in keys or (str(order_id()),):
                headers = headers_for(
                    id=uuid4(), source="/isthmus/order", type="isthmus.order.OrderPlaced.v1", recorded_at=NOW,
                    key=key, sequence=sequence, correlation_id="", causation_id=None, traceparent="",
                )  # fmt: skip
                await (await producer.send_one(self.topic.name, key, placed().model_dump_json().encode(), headers))
        await producer.stop()

    async def looks(self) -> list[str]:
        await self.watch.turn()
        return list(self.watch.agreement.drift.values())


@pytest.fixture
async def warehouse(database: Database, infrastructure: Stack) -> Warehouse:
    servers = infrastructure.bootstrap_servers
    topic = Topic[OrderEvent](
        f"test.{uuid4().hex[:12]}.v1", owner="order", key="order_id", union=OrderEvent, about="", partitions=2
    )
    await create_topics(servers, [topic])
    house = Warehouse(database, servers, topic)
    await house.looks()  # begins at the end of the log
    return house


async def test_what_is_said_agrees(warehouse: Warehouse):
    await warehouse.has(2)
    await warehouse.says(1, 2, keys=[str(order_id()), "not-an-id"])
    assert [await warehouse.looks() for _ in range(3)] == [[], [], []]


async def test_a_lost_event_is_seen_at_the_second_look(warehouse: Warehouse):
    await warehouse.says(1)
    await warehouse.has(2)
    assert await warehouse.looks() == []
    assert await warehouse.looks() == ["log_behind"]
    await warehouse.says(2)
    await warehouse.looks()
    assert await warehouse.looks() == []


async def test_an_event_that_waits_in_the_outbox_is_not_lost(warehouse: Warehouse):
    await warehouse.says(1)
    await warehouse.has(2)
    async with warehouse.database.transaction() as tx:
        await tx.db.execute(
            """INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, sequence, correlationid, traceparent,
                                   source) VALUES (gen_random_uuid(), $1, $2, '', '', 2, '', '', '')""",
            warehouse.topic.name, str(order_id()),
        )  # fmt: skip
    assert [await warehouse.looks() for _ in range(3)] == [[], [], []]


async def test_a_log_that_is_ahead_is_seen_at_once(warehouse: Warehouse):
    await warehouse.has(2)
    await warehouse.says(1, 2, 3)
    assert await warehouse.looks() == ["log_ahead"]


async def test_only_the_leader_looks_and_a_new_one_begins_at_the_end(warehouse: Warehouse):
    await warehouse.says(1)
    await warehouse.has(5)
    warehouse.leads = False
    assert [await warehouse.looks() for _ in range(2)] == [[], []]
    warehouse.leads = True
    assert [await warehouse.looks() for _ in range(2)] == [[], []]
