"""From outbox to handler over a real Kafka: in order per key, repeats dropped, one relay at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest

from deploy.local.stack import Stack
from shared import relay as relay_module
from shared.consume import Subscription
from shared.envelope import read
from shared.events.order import OrderEvent
from shared.health import Health
from shared.kafka import create_topics, read_all
from shared.loop import ConsumerLoop
from shared.messages import Batch, Cause, Message, Topic
from shared.postgres import Database, Tx
from shared.relay import Relay
from tests.support.databases import url_of
from tests.support.kernel import rows, value, wiring
from tests.support.orders import order_id, placed


@pytest.fixture
async def topic(infrastructure: Stack) -> Topic[OrderEvent]:
    """A topic that no other test uses."""
    own = Topic[OrderEvent](
        f"test.{uuid4().hex[:12]}.v1", owner="order", key="order_id", union=OrderEvent, about="", partitions=2
    )
    await create_topics(infrastructure.bootstrap_servers, [own])
    return own


@asynccontextmanager
async def relaying(database: Database, stack: Stack) -> AsyncGenerator[Relay]:
    relay = Relay(url_of(database), stack.bootstrap_servers, Health())
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        relay.stop()
        _, late = await asyncio.wait([task], timeout=3)
        for one in late:
            one.cancel()
            await asyncio.wait([one])


@asynccontextmanager
async def consuming(loop: ConsumerLoop) -> AsyncGenerator[None]:
    task = asyncio.create_task(loop.run())
    try:
        yield
    finally:
        loop.stop()
        await asyncio.wait([task], timeout=10)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < until, "it did not come to that"
        await asyncio.sleep(0.03)


async def publish(database: Database, topic: Topic[OrderEvent], *events: tuple[int, int], reference: str = "") -> None:
    """One transaction: events of orders by number, with their sequences."""
    async with database.transaction() as tx:
        for number, sequence in events:
            event = placed(number=number).model_copy(update={"external_reference": reference})
            tx.publish(topic, event, cause=Cause(id=uuid4(), correlation_id="test"), sequence=sequence)


async def outbox(database: Database) -> list[tuple[str, int]]:
    found = await rows(database, "SELECT aggregateid, sequence FROM outbox ORDER BY position")
    return [(row["aggregateid"], row["sequence"]) for row in found]


async def in_log(stack: Stack, topic: Topic[OrderEvent]) -> dict[str, list[int]]:
    """The sequences of each key, in log order."""
    found: dict[str, list[int]] = {}
    for record in await read_all(stack.bootstrap_servers, [topic]):
        message = read(record, topic)
        assert isinstance(message, Message)
        found.setdefault(message.key, []).append(message.sequence)
    return found


def is_empty(database: Database) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return not await outbox(database)

    return check


async def test_events_reach_kafka_in_the_order_of_their_keys(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent]
):
    async with relaying(database, infrastructure) as relay:
        database.on_outbox = relay.wake
        for sequence in range(1, 101):
            await publish(database, topic, *((number, sequence) for number in range(15)))
        await eventually(is_empty(database))
    expected = {str(order_id(number)): list(range(1, 101)) for number in range(15)}
    assert await in_log(infrastructure, topic) == expected


async def test_what_does_not_fit_into_one_batch_arrives_whole_and_in_order(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent]
):
    for sequence in range(1, 13):  # 1.2 MB for one partition; a batch takes a quarter of one
        await publish(database, topic, (1, sequence), (2, sequence), reference="x" * 50_000)
    async with relaying(database, infrastructure):
        await eventually(is_empty(database))
    everything = list(range(1, 13))
    assert await in_log(infrastructure, topic) == {str(order_id(1)): everything, str(order_id(2)): everything}


@pytest.mark.parametrize("size", [2_000_000, 5_000_000], ids=["for its topic", "for any topic"])
async def test_an_event_too_large_blocks_its_own_key_only(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], size: int
):
    await publish(database, topic, (1, 1), (2, 1))
    await publish(database, topic, (1, 2), reference="x" * size)
    await publish(database, topic, (1, 3), (2, 2))
    blocked = [(str(order_id(1)), 2), (str(order_id(1)), 3)]

    async def only_blocked() -> bool:
        return await outbox(database) == blocked

    async with relaying(database, infrastructure):
        await eventually(only_blocked)
        await publish(database, topic, (1, 4), (2, 3))
        blocked.append((str(order_id(1)), 4))
        await eventually(only_blocked)
        assert await in_log(infrastructure, topic) == {str(order_id(1)): [1], str(order_id(2)): [1, 2, 3]}
        async with database.transaction() as tx:  # mended by an operator
            await tx.db.execute("UPDATE outbox SET payload = $1 WHERE length(payload) > 1000000",
                                placed().model_dump_json(exclude_none=True).encode())  # fmt: skip
        await eventually(is_empty(database))
    assert (await in_log(infrastructure, topic))[str(order_id(1))] == [1, 2, 3, 4]


async def test_of_two_relays_one_is_active_and_the_other_takes_over(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent]
):
    async with relaying(database, infrastructure) as second:
        async with relaying(database, infrastructure) as first:

            async def one_active() -> bool:
                return first._active != second._active

            await eventually(one_active)
            database.on_outbox = lambda: (first.wake(), second.wake())[0]
            for sequence in range(1, 21):
                await publish(database, topic, (1, sequence))
                assert not (first._active and second._active)
            was_first = first._active
        for sequence in range(21, 41):
            await publish(database, topic, (1, sequence))
        await eventually(is_empty(database))
        assert second._active
        assert was_first or second._active
    assert await in_log(infrastructure, topic) == {str(order_id(1)): list(range(1, 41))}


async def test_a_relay_that_does_not_send_itself_wakes_the_one_that_does(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], monkeypatch: pytest.MonkeyPatch
):
    async with relaying(database, infrastructure) as one, relaying(database, infrastructure) as other:

        async def settled() -> bool:
            return one._active != other._active and (one._waiting is None) != (other._waiting is None)

        await eventually(settled)
        database.on_outbox = other.wake if one._active else one.wake
        for sequence in range(1, 6):
            await publish(database, topic, (1, sequence))
            await eventually(is_empty(database), 2)


async def test_hints_and_the_wait_for_the_lock_do_not_get_in_each_others_way(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], capsys: pytest.CaptureFixture[str]
):
    """Both use the one connection: a relay that is woken while it starts must not have to begin again."""
    for _ in range(5):
        async with relaying(database, infrastructure) as relay:
            for _ in range(100):
                relay.wake()
                await asyncio.sleep(0.005)
            assert relay.active
    assert "relay starts again" not in capsys.readouterr().out


class Counted:
    """A handler that notes the orders it is told of in the service's tables."""

    def __init__(self) -> None:
        self.seen: list[UUID] = []

    async def note_orders(self, tx: Tx, batch: Batch[OrderEvent]) -> None:
        for message in batch:
            await tx.db.execute("INSERT INTO holds VALUES ($1, 'held', 1)", message.event.order_id)
            self.seen.append(message.event.order_id)


async def counts(database: Database) -> dict[str, int]:
    (row,) = await rows(
        database,
        """SELECT coalesce(sum(next_offset - start_offset), 0)::int AS consumed,
                  coalesce(sum(applied), 0)::int AS applied, coalesce(sum(duplicate), 0)::int AS duplicate
           FROM consumer_offsets""",
    )
    return dict(row)


def consumer(database: Database, stack: Stack, topic: Topic[OrderEvent], counted: Counted) -> ConsumerLoop:
    service = topic.name.split(".")[1]  # a consumer group of its own
    subscription = Subscription("note_orders", [topic], counted.note_orders)
    return ConsumerLoop(subscription, wiring(database, service=service, bootstrap_servers=stack.bootstrap_servers))


def consumed(database: Database, number: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return (await counts(database))["consumed"] == number

    return check


async def test_a_patient_consumer_takes_in_one_batch_what_came_meanwhile(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent]
):
    batches: list[int] = []

    async def note_orders(_tx: Tx, batch: Batch[OrderEvent]) -> None:
        batches.append(len(batch))

    own = wiring(database, service=topic.name.split(".")[1], bootstrap_servers=infrastructure.bootstrap_servers)
    async with (
        relaying(database, infrastructure),
        consuming(ConsumerLoop(Subscription("note_orders", [topic], note_orders, patience=1.5), own)),
    ):
        await publish(database, topic, (1, 1))
        await eventually(consumed(database, 1))
        for number in (2, 3, 4):
            await publish(database, topic, (number, 1))
            await asyncio.sleep(0.15)
        await eventually(consumed(database, 4))
    assert batches == [1, 3]


async def test_what_a_killed_relay_sent_but_did_not_delete_takes_effect_once(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], monkeypatch: pytest.MonkeyPatch
):
    await publish(database, topic, *((number, 1) for number in range(20)))
    with monkeypatch.context() as patch:
        patch.setattr(
            relay_module,
            "SENT",
            relay_module.SENT.replace("= ANY($1::bigint[])", "= ANY($1) AND 1 / (position * 0) = 1"),
        )
        async with relaying(database, infrastructure):

            async def sent() -> bool:
                return len(await read_all(infrastructure.bootstrap_servers, [topic])) >= 20

            await eventually(sent)
    assert len(await outbox(database)) == 20
    async with relaying(database, infrastructure):
        await eventually(is_empty(database))
    log = len(await read_all(infrastructure.bootstrap_servers, [topic]))
    assert log >= 40
    counted = Counted()
    async with consuming(consumer(database, infrastructure, topic, counted)):
        await eventually(consumed(database, log))
    assert sorted(counted.seen) == sorted(order_id(number) for number in range(20))
    assert await counts(database) == {"consumed": log, "applied": 20, "duplicate": log - 20}


async def test_a_restarted_consumer_goes_on_at_once_where_it_was_left(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent]
):
    counted = Counted()
    async with relaying(database, infrastructure):
        await publish(database, topic, *((number, 1) for number in range(30)))
        async with consuming(consumer(database, infrastructure, topic, counted)):
            await eventually(consumed(database, 30))
        await publish(database, topic, *((number, 1) for number in range(30, 60)))
        began = time.monotonic()
        async with consuming(consumer(database, infrastructure, topic, counted)):
            await eventually(consumed(database, 60))
        assert time.monotonic() - began < 10  # static membership: no waiting for the old session to end
    assert len(counted.seen) == len(set(counted.seen)) == 60
    async with database.transaction() as tx:  # and with offsets reset, nothing happens again
        await tx.db.execute("UPDATE consumer_offsets SET next_offset = 0, applied = 0, duplicate = 0")
    async with consuming(consumer(database, infrastructure, topic, counted)):
        await eventually(consumed(database, 60))
    assert len(counted.seen) == 60
    assert await counts(database) == {"consumed": 60, "applied": 0, "duplicate": 60}
    assert await value(database, "SELECT count(*) FROM holds") == 60


# -- what cannot be sent -----------------------------------------------------------------------------------------------


def unheard_of() -> Topic[OrderEvent]:
    return Topic[OrderEvent](f"test.{uuid4().hex[:12]}.v1", owner="order", key="order_id", union=OrderEvent, about="")


async def is_sent(database: Database, seconds: float, *, but: int) -> None:
    """The outbox comes down to so many events within this time."""

    async def down() -> bool:
        return len(await outbox(database)) == but

    await eventually(down, seconds)


async def test_an_unknown_topic_blocks_itself_only(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(relay_module, "BLOCKED_SECONDS", 3.0)
    missing = unheard_of()
    await publish(database, missing, (1, 1), (2, 1))
    await publish(database, topic, (1, 1), (3, 1))
    async with relaying(database, infrastructure) as relay:
        database.on_outbox = relay.wake
        await is_sent(database, 8, but=2)
        for sequence in range(2, 12):  # over several tries of the missing topic
            await publish(database, missing, (1, sequence))
            await publish(database, topic, (1, sequence))
            await is_sent(database, 4, but=sequence + 1)
            await asyncio.sleep(0.5)
        await create_topics(infrastructure.bootstrap_servers, [missing])
        await eventually(is_empty(database))
    assert await in_log(infrastructure, topic) == {str(order_id(1)): list(range(1, 12)), str(order_id(3)): [1]}
    assert await in_log(infrastructure, missing) == {str(order_id(1)): list(range(1, 12)), str(order_id(2)): [1]}


async def test_a_relay_with_events_that_it_cannot_send_stays_fast_for_the_others_and_stops(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent]
):
    await publish(database, topic, (1, 1), reference="x" * 2_000_000)
    await publish(database, unheard_of(), (1, 1))
    relay = Relay(url_of(database), infrastructure.bootstrap_servers, Health())
    database.on_outbox = relay.wake
    task = asyncio.create_task(relay.run())
    await publish(database, topic, (2, 1))
    await is_sent(database, 8, but=2)
    began = time.monotonic()
    for sequence in range(2, 22):
        await publish(database, topic, (2, sequence))
        await is_sent(database, 2, but=2)
    assert time.monotonic() - began < 4
    began = time.monotonic()
    relay.stop()
    await asyncio.wait_for(task, 4)
    assert time.monotonic() - began < 3
    assert len(await outbox(database)) == 2


# -- a log that is not the one that was consumed -----------------------------------------------------------------------


async def test_a_consumer_whose_log_was_lost_refuses_until_someone_has_looked(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent]
):
    counted = Counted()
    async with relaying(database, infrastructure):
        await publish(database, topic, *((number, 1) for number in range(20)))
        await eventually(is_empty(database))
    async with database.transaction() as tx:  # as another Kafka, with a longer log, had left it
        await tx.db.execute(
            """INSERT INTO consumer_offsets (consumer, topic, partition, start_offset, next_offset)
               SELECT 'note_orders', $1, partition, 1000, 1000 FROM generate_series(0, 1) AS partition""",
            topic.name,
        )
    refusing = consumer(database, infrastructure, topic, counted)

    async def says_why() -> bool:
        return "beyond the end" in str(await refusing._unready())

    async with consuming(refusing):
        await eventually(says_why)
        await asyncio.sleep(1.0)
    assert (counted.seen, await counts(database)) == ([], {"consumed": 0, "applied": 0, "duplicate": 0})
    async with database.transaction() as tx:  # looked at, and mended
        await tx.db.execute("UPDATE consumer_offsets SET start_offset = 0, next_offset = 0")
    async with consuming(consumer(database, infrastructure, topic, counted)):
        await eventually(consumed(database, 20))
    assert sorted(counted.seen) == sorted(order_id(number) for number in range(20))
