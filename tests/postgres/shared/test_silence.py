"""A Kafka client may go quiet without a word, its tasks ended or waiting for ever: it is noticed, and replaced."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.producer.sender import Sender

from deploy.local.stack import Stack
from shared import kafka, relay, silence
from shared.events.order import OrderEvent
from shared.kafka import Batch, Consumer, Place, Producer
from shared.messages import Topic
from shared.partitions import partition_of
from shared.postgres import Database
from tests.postgres.shared.test_relaying import (
    Counted,
    consumer,
    consuming,
    eventually,
    in_log,
    is_empty,
    outbox,
    publish,
    relaying,
    topic,
)
from tests.support.orders import order_id

__all__ = ["topic"]


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """aiokafka's consumers, in the order of their starts."""
    started: list[Any] = []
    start = Consumer.start

    async def noted(self: Consumer, *arguments: Any) -> None:
        started.append(self._kafka)
        await start(self, *arguments)

    monkeypatch.setattr(Consumer, "start", noted)
    return started


def gone_deaf(client: Any) -> None:
    """It fetches no more; nor may the answer come that it waits for just now."""
    for task in (client._fetcher._fetch_task, *client._fetcher._pending_tasks):
        task.cancel()


def failed_fetcher(client: Any) -> None:
    """Its task ends with an error, which stopping it raises once more."""

    async def fail() -> None:
        raise ValueError("unexpected")

    gone_deaf(client)
    client._fetcher._fetch_task = asyncio.ensure_future(fail())


def never_assigned(client: Any) -> None:
    client._subscription.begin_reassignment()


def told_nothing(client: Any) -> None:
    """Neither records nor answers come any more, for want of metadata."""
    gone_deaf(client)

    async def for_ever(*_: Any) -> None:
        await asyncio.Event().wait()

    client.end_offsets = for_ever


@pytest.mark.parametrize("quiet", [gone_deaf, failed_fetcher, never_assigned, told_nothing])
async def test_a_consumer_that_hears_nothing_any_more_is_replaced(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], clients: list[Any],
    monkeypatch: pytest.MonkeyPatch, quiet: Any,
):  # fmt: skip
    monkeypatch.setattr(silence, "LOOK", 0.5)
    monkeypatch.setattr(silence, "ANSWER", 1.0)
    monkeypatch.setattr(kafka, "ASSIGNED_WITHIN", 2.0)
    counted = Counted()
    async with relaying(database, infrastructure), consuming(consumer(database, infrastructure, topic, counted)):
        await publish(database, topic, (1, 1))

        async def heard() -> bool:
            return order_id(1) in counted.seen

        await eventually(heard)
        quiet(clients[0])
        await publish(database, topic, (2, 1))

        async def both() -> bool:
            return counted.seen == [order_id(1), order_id(2)]

        await eventually(both)
    assert len(clients) == 2
    assert not any(conn.connected() for conn in clients[0]._client._conns.values())


async def test_a_consumer_whose_first_rebalance_has_no_end_begins_again(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], clients: list[Any],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr(kafka, "ASSIGNED_WITHIN", 2.0)
    subscription: Any = SubscriptionState  # untyped
    assigned = subscription.wait_for_assignment

    def at_first_never(self: Any) -> Any:
        return assigned(self) if len(clients) > 1 else asyncio.get_running_loop().create_future()

    monkeypatch.setattr(subscription, "wait_for_assignment", at_first_never)
    counted = Counted()
    async with relaying(database, infrastructure), consuming(consumer(database, infrastructure, topic, counted)):
        await publish(database, topic, (1, 1))

        async def heard() -> bool:
            return counted.seen == [order_id(1)]

        await eventually(heard)
    assert len(clients) == 2


async def test_a_consumer_is_not_replaced_because_there_is_nothing_to_hear(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], clients: list[Any],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr(silence, "LOOK", 0.2)
    async with consuming(consumer(database, infrastructure, topic, Counted())):
        await asyncio.sleep(4)
    assert len(clients) == 1


async def test_a_relay_whose_producer_hangs_sends_with_another(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], monkeypatch: pytest.MonkeyPatch
):
    """Nor does the one that hangs hold up the end of itself."""
    monkeypatch.setattr(relay, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(kafka, "STOPPED_WITHIN", 1.0)
    hanging: list[Any] = []
    sender: Any = Sender  # untyped
    send = sender._send_produce_req

    async def once_never(self: Any, *arguments: Any) -> None:
        if not hanging:
            hanging.append(self)
            await asyncio.Event().wait()
        await send(self, *arguments)

    monkeypatch.setattr(sender, "_send_produce_req", once_never)
    await publish(database, topic, (1, 1), (1, 2))
    async with relaying(database, infrastructure):
        await eventually(is_empty(database))
    assert hanging
    assert await in_log(infrastructure, topic) == {str(order_id(1)): [1, 2]}


async def test_a_relay_forgets_what_was_acknowledged_though_the_rest_never_is(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], monkeypatch: pytest.MonkeyPatch
):
    """Else it would send to the partitions that are well again and again, for as long as one is not."""
    monkeypatch.setattr(relay, "SILENT_SECONDS", 1.0)
    send = Producer.send
    hanging = True

    async def send_or_hang(self: Producer, place: Place, batch: Batch) -> asyncio.Future[Any]:
        if hanging and place[1] == partition_of(str(order_id(1)), topic):
            return asyncio.get_running_loop().create_future()
        return await send(self, place, batch)

    monkeypatch.setattr(Producer, "send", send_or_hang)
    await publish(database, topic, (1, 1), (3, 1), (1, 2))
    assert partition_of(str(order_id(1)), topic) != partition_of(str(order_id(3)), topic)
    async with relaying(database, infrastructure):

        async def only_the_first() -> bool:
            return await outbox(database) == [(str(order_id(1)), 1), (str(order_id(1)), 2)]

        await eventually(only_the_first)
        hanging = False
        await eventually(is_empty(database))
    assert await in_log(infrastructure, topic) == {str(order_id(1)): [1, 2], str(order_id(3)): [1]}
