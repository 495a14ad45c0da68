"""A view is built anew from a real log, beside the consumer or the writers that keep it up to date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from deploy.local.stack import Stack
from shared import rebuild as module
from shared.consume import Subscription
from shared.events.order import OrderEvent, OrderPlaced
from shared.loop import ConsumerLoop
from shared.messages import Batch, Cause, Topic
from shared.postgres import Database, Tx
from shared.rebuild import RebuildError, rebuild
from shared.views import View
from tests.postgres.shared.test_relaying import consuming, eventually, is_empty, publish, relaying, topic
from tests.support.databases import url_of
from tests.support.kernel import rows, value, wiring
from tests.support.orders import order_id, placed

__all__ = ["topic"]

TABLES = """
CREATE TABLE houses (code text PRIMARY KEY);
INSERT INTO houses VALUES ('');
CREATE TABLE notes (
    order_id uuid, sequence bigint NOT NULL CONSTRAINT counted CHECK (sequence > 0), house text REFERENCES houses,
    CONSTRAINT one_each PRIMARY KEY (order_id)
) WITH (fillfactor = 60);
CREATE INDEX notes_by_sequence ON notes (sequence) WHERE sequence > 1;
GRANT SELECT ON notes TO PUBLIC;
"""

LOOKS = """
SELECT 'column ' || attname || ' ' || atttypid::regtype || ' ' || attnotnull FROM pg_attribute
WHERE attrelid = 'public.notes'::regclass AND attnum > 0
UNION ALL SELECT 'constraint ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = 'public.notes'::regclass
UNION ALL SELECT 'index ' || pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'public.notes'::regclass
UNION ALL SELECT 'table ' || array_to_string(reloptions, ' ') || ' ' || relacl::text FROM pg_class
WHERE oid = 'public.notes'::regclass
ORDER BY 1
"""


async def note(tx: Tx, batch: Batch[OrderEvent]) -> None:
    for message in batch:
        assert isinstance(message.event, OrderPlaced)
        await tx.db.execute(
            """INSERT INTO notes VALUES ($1, $2, $3) ON CONFLICT (order_id) DO UPDATE SET sequence = excluded.sequence
               WHERE notes.sequence < excluded.sequence""",
            message.event.order_id, message.sequence, message.event.external_reference,
        )  # fmt: skip


@asynccontextmanager
async def kept(database: Database, stack: Stack, topic: Topic[OrderEvent]) -> AsyncGenerator[View]:
    """A view and the consumer that keeps it, with 100 orders that were said twice each."""
    await database.pool.execute(TABLES)
    view = View("note_orders", [topic], ["notes"], note)
    own = wiring(database, service=topic.name.split(".")[1], bootstrap_servers=stack.bootstrap_servers)
    loop = ConsumerLoop(Subscription(view.name, view.topics, view.handle, view=view.tables), own)
    async with relaying(database, stack) as relay, consuming(loop):
        database.on_outbox = relay.wake
        for sequence in (1, 2):
            await publish(database, topic, *((number, sequence) for number in range(100)))
        await eventually(lambda: noted(database, dict.fromkeys(map(order_id, range(100)), 2)))
        yield view


async def noted(database: Database, wanted: dict[UUID, int]) -> bool:
    return {row["order_id"]: row["sequence"] for row in await rows(database, "SELECT * FROM notes")} == wanted


async def build(view: View, database: Database, stack: Stack, **how: Any) -> module.Rebuilt:
    return await rebuild(view, url_of(database), stack.bootstrap_servers, lambda _: None, **how)


async def leftovers(database: Database) -> list[str]:
    found = await rows(database, r"SELECT nspname FROM pg_namespace WHERE nspname ~ '^(rebuild|replaced)_'")
    return [row["nspname"] for row in found]


async def test_a_view_comes_back_as_it_was_while_its_consumer_goes_on(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "CHUNK", 20)
    monkeypatch.setattr(module, "CLOSE", 30)
    async with kept(database, infrastructure, topic) as view:
        looks = [row[0] for row in await rows(database, LOOKS)]
        assert any("one_each" in line for line in looks)
        await database.pool.execute("DELETE FROM notes WHERE get_byte(uuid_send(order_id), 15) % 2 = 0")
        await database.pool.execute("UPDATE notes SET sequence = 77")
        going_on = asyncio.create_task(say_more(database, topic))
        done = await build(view, database, infrastructure)
        await going_on
        assert done.events >= 200
        assert not done.left_out
        wanted = dict.fromkeys(map(order_id, range(100)), 2) | dict.fromkeys(map(order_id, range(200, 260)), 1)
        await eventually(lambda: noted(database, wanted))
        assert [row[0] for row in await rows(database, LOOKS)] == looks
        await publish(database, topic, (300, 1))  # and its consumer still keeps it
        await eventually(lambda: noted(database, {**wanted, order_id(300): 1}))
    assert await leftovers(database) == []


async def say_more(database: Database, topic: Topic[OrderEvent]) -> None:
    for number in range(200, 260):
        await publish(database, topic, (number, 1))
        await asyncio.sleep(0.01)


async def test_what_the_service_itself_says_is_complete_though_it_goes_on_saying(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "CHUNK", 20)
    monkeypatch.setattr(module, "CLOSE", 30)
    await database.pool.execute(TABLES)
    view = View("own", [topic], ["notes"], note, own=True)
    saying = True

    async def say(first: int) -> int:
        number = first
        while saying:
            async with database.transaction() as tx:  # the event, and what is written of it, in one transaction
                await tx.db.execute("UPDATE houses SET code = code WHERE false")  # locks held before that of the view
                event = placed(number=number).model_copy(update={"external_reference": ""})
                cause = Cause(id=event.order_id, correlation_id="test")
                tx.publish(topic, event, cause=cause, sequence=1)
                await tx.db.execute("INSERT INTO notes VALUES ($1, 1, '')", event.order_id)
            number += 3
            await asyncio.sleep(0.01)
        return (number - first) // 3

    async with relaying(database, infrastructure) as relay:
        database.on_outbox = relay.wake
        writers = [asyncio.create_task(say(first)) for first in range(3)]
        await asyncio.sleep(0.5)
        done = await build(view, database, infrastructure)
        assert done.kept is None
        await asyncio.sleep(0.2)
        saying = False
        said = sum([await writer for writer in writers])
        await eventually(is_empty(database))
        assert done.events > 0
        assert not done.left_out
        assert await value(database, "SELECT count(*) FROM notes") == said > done.events
        again = await build(view, database, infrastructure)
        assert again.events == said
        assert await value(database, "SELECT count(*) FROM notes") == said
    assert await leftovers(database) == []


async def test_without_a_relay_the_old_tables_stay(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    await database.pool.execute(TABLES + "INSERT INTO notes VALUES (gen_random_uuid(), 1)")
    await publish(database, topic, (1, 1))
    with pytest.raises(RebuildError, match="outbox"):
        await build(View("own", [topic], ["notes"], note, own=True), database, infrastructure)
    assert await value(database, "SELECT count(*) FROM notes") == 1


async def test_one_that_was_stopped_goes_on_where_it_was_or_begins_anew(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "CHUNK", 20)
    monkeypatch.setattr(module, "CLOSE", 30)
    async with kept(database, infrastructure, topic) as view:
        began = asyncio.Event()

        async def slow(tx: Tx, batch: Batch[OrderEvent]) -> None:
            if await tx.db.fetchval("SELECT count(*) FROM notes") >= 40:
                began.set()
                await asyncio.sleep(60)
            await note(tx, batch)

        for anew in (False, True):
            began.clear()
            stopped = asyncio.create_task(build(replace(view, handle=slow), database, infrastructure))
            await began.wait()
            stopped.cancel()
            await asyncio.wait([stopped])
            assert await leftovers(database) == ["rebuild_note_orders"]
            assert await noted(database, dict.fromkeys(map(order_id, range(100)), 2))
            done = await build(view, database, infrastructure, anew=anew)
            assert done.events == 200 if anew else done.events <= 160
            assert await noted(database, dict.fromkeys(map(order_id, range(100)), 2))


async def stumbling(tx: Tx, batch: Batch[OrderEvent]) -> None:
    await note(tx, batch)
    if any(message.event.order_id == order_id(7) for message in batch):
        raise ValueError("no seventh")


async def failing(_tx: Tx, _batch: Batch[OrderEvent]) -> None:
    raise ValueError("a bad release")


async def test_what_cannot_be_applied_ends_it_unless_it_may_be_left_out(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent]
):
    async with kept(database, infrastructure, topic) as view:
        all_of_them = dict.fromkeys(map(order_id, range(100)), 2)
        bad = replace(view, handle=stumbling)
        with pytest.raises(RebuildError, match="cannot be applied: ValueError: no seventh"):
            await build(bad, database, infrastructure)
        assert await noted(database, all_of_them)
        done = await build(view, database, infrastructure)  # mended: it goes on, and nothing is missing
        assert done.left_out == 0
        assert await noted(database, all_of_them)

        done = await build(bad, database, infrastructure, leave_out=True)
        assert done.left_out == 2
        assert await noted(database, {order_id(number): 2 for number in range(100) if number != 7})


async def test_a_release_that_can_apply_nothing_never_replaces_a_view(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "CLOSE", 30)
    async with kept(database, infrastructure, topic) as view:
        bad = replace(view, handle=failing)
        for _ in range(3):  # what one has left out counts for the next
            with pytest.raises(RebuildError, match="more than 100 records would be left out"):
                await build(bad, database, infrastructure, leave_out=True)
        with pytest.raises(RebuildError, match="left 100 records out: begin --anew"):
            await build(view, database, infrastructure)
        await build(view, database, infrastructure, anew=True)
        assert await noted(database, dict.fromkeys(map(order_id, range(100)), 2))


async def test_a_log_that_ends_before_what_was_consumed_is_refused(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent]
):
    async with kept(database, infrastructure, topic) as view:
        await eventually(is_empty(database))
        await database.pool.execute("UPDATE relayed SET next_offset = next_offset + 1000")
        with pytest.raises(RebuildError, match="another Kafka"):
            await build(replace(view, own=True), database, infrastructure)
        elsewhere = replace(topic, name="test.nowhere.v1")
        with pytest.raises(RebuildError, match="is this the right Kafka"):
            await build(replace(view, topics=[elsewhere]), database, infrastructure, anew=True)
    await database.pool.execute("UPDATE consumer_offsets SET next_offset = next_offset + 1000")
    with pytest.raises(RebuildError, match="another Kafka"):
        await build(view, database, infrastructure)
    assert await noted(database, dict.fromkeys(map(order_id, range(100)), 2))


async def test_a_log_that_is_away_during_the_exchange_holds_nobody_up(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "PATIENCE", 1.0)

    async def for_ever(*_: Any) -> AsyncGenerator[Any]:
        await asyncio.Event().wait()
        yield None

    async with kept(database, infrastructure, topic) as view:
        monkeypatch.setattr(module.kafka, "read_range", for_ever)
        for own in (False, True):
            with pytest.raises(RebuildError, match="the exchange would take more than 1 s"):
                await build(replace(view, own=own), database, infrastructure)
        await publish(database, topic, (300, 1))  # and its consumer goes on
        await eventually(lambda: noted(database, dict.fromkeys(map(order_id, range(100)), 2) | {order_id(300): 1}))


async def test_a_table_that_was_migrated_meanwhile_is_not_replaced_by_its_former_self(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent]
):
    async with kept(database, infrastructure, topic) as view:
        with pytest.raises(RebuildError, match="Mend"):
            await build(replace(view, handle=stumbling), database, infrastructure)
        await database.pool.execute("ALTER TABLE notes ADD COLUMN more text")
        with pytest.raises(RebuildError, match="notes was migrated meanwhile: begin --anew"):
            await build(view, database, infrastructure)
        await build(view, database, infrastructure, anew=True)
        assert await value(database, "SELECT count(more) FROM notes") == 0


async def test_old_tables_that_something_uses_are_kept_and_named(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent]
):
    async with kept(database, infrastructure, topic) as view:
        await database.pool.execute("CREATE VIEW report AS SELECT count(*) FROM notes")
        done = await build(view, database, infrastructure)
        assert done.kept is not None
        assert "replaced_note_orders" in done.kept
        assert "report" in done.kept
        with pytest.raises(RebuildError, match="drop both"):
            await build(view, database, infrastructure)
        await database.pool.execute("DROP VIEW report")
        await build(view, database, infrastructure)
        assert await leftovers(database) == []


async def test_a_view_must_not_publish(database: Database, infrastructure: Stack, topic: Topic[OrderEvent]):
    async with kept(database, infrastructure, topic) as view:

        async def talking(tx: Tx, batch: Batch[OrderEvent]) -> None:
            tx.publish(topic, batch[0].event, cause=batch[0], sequence=3)

        with pytest.raises(RebuildError, match="must not publish"):
            await build(replace(view, handle=talking), database, infrastructure)


async def test_a_log_without_its_beginning_gives_no_view(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent]
):
    async with kept(database, infrastructure, topic) as view:
        admin = AIOKafkaAdminClient(bootstrap_servers=infrastructure.bootstrap_servers)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(topic.name, 0): RecordsToDelete(before_offset=3)})
        finally:
            await admin.close()
        with pytest.raises(RebuildError, match="no longer has its beginning"):
            await build(view, database, infrastructure)
        assert await noted(database, dict.fromkeys(map(order_id, range(100)), 2))


async def test_of_two_rebuilds_of_a_view_one_is_refused(
    database: Database, infrastructure: Stack, topic: Topic[OrderEvent]
):
    async with kept(database, infrastructure, topic) as view, database.pool.acquire() as connection:
        assert await connection.fetchval(module.TRY_LOCK, view.name)
        with pytest.raises(RebuildError, match="already"):
            await build(view, database, infrastructure)
        await connection.execute("SELECT pg_advisory_unlock_all()")
