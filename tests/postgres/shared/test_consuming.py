"""A batch takes effect exactly once: rows, outbox and offsets together, whatever comes twice or cannot be read."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.inventory.handlers import hold_stock
from shared import brake
from shared.brake import BrakedError
from shared.events.order import OrderClosed, OrderEvent, OrderPlaced
from shared.messages import Batch
from shared.postgres import Database, Tx
from shared.progress import FencedError
from shared.topics import HOLDS, ORDERS
from tests.support.kernel import FakeRecord, Fed, record, rows, said, value
from tests.support.orders import held, order_id, placed

TWO_MESSAGES = [order_id(1), order_id(2)]


@dataclass
class Noted:
    """A handler that writes down the orders it is told of, and fails at some of them."""

    fails_at: set[UUID] = field(default_factory=set[UUID])
    error: Exception = field(default_factory=lambda: ValueError("I cannot"))
    batches: list[list[UUID]] = field(default_factory=list[list[UUID]])

    async def note(self, tx: Tx, batch: Batch[OrderEvent]) -> None:
        self.batches.append([message.event.order_id for message in batch])
        for message in batch:
            await tx.db.execute("INSERT INTO holds VALUES ($1, 'held', 1)", message.event.order_id)
            if message.event.order_id in self.fails_at:
                raise self.error


async def fed(database: Database, noted: Noted) -> Fed:
    return await Fed(database, noted.note, [ORDERS]).start()


def order_record(number: int, offset: int | None = None, **more: Any) -> FakeRecord:
    return record(ORDERS, placed(number=number), number - 1 if offset is None else offset, **more)


async def noted_orders(database: Database) -> set[UUID]:
    return {row["order_id"] for row in await rows(database, "SELECT order_id FROM holds")}


async def account(database: Database, partition: int = 0) -> dict[str, int]:
    """What became of the messages of a partition; checked: each was counted once."""
    (row,) = await rows(
        database,
        """SELECT next_offset - start_offset AS consumed, applied, duplicate, skipped, dead_lettered
           FROM consumer_offsets WHERE topic = $1 AND partition = $2""",
        ORDERS.name, partition,
    )  # fmt: skip
    counts = dict(row)
    consumed = counts.pop("consumed")
    assert consumed == sum(counts.values())
    return {name: number for name, number in counts.items() if number}


async def dead(database: Database) -> Sequence[Any]:
    return await rows(database, "SELECT * FROM outbox WHERE type = 'dead-letter' ORDER BY position")


async def test_a_batch_becomes_rows_and_events_with_its_offsets(database: Database):
    await stocked(database)
    loop = await Fed(database, hold_stock, [ORDERS]).start()
    await loop.take(order_record(1), order_record(2))
    assert await noted_orders(database) == set(TWO_MESSAGES)
    assert await said(database) == [
        ("StockHeld", str(order_id(1)), 1), ("StockHeld", str(order_id(2)), 1),
        ("StockLevelChanged", "BLUE-CUP", 1), ("StockLevelChanged", "RED-LAMP", 1),
    ]  # fmt: skip
    assert await account(database) == {"applied": 2}
    reserved = await rows(database, "SELECT sku, reserved FROM stock ORDER BY sku")
    assert [tuple(row) for row in reserved] == [("BLUE-CUP", 4), ("RED-LAMP", 2)]


async def stocked(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.db.execute("INSERT INTO warehouses VALUES ('BER', 'Berlin', 'DE', 1)")
        await tx.db.execute("""INSERT INTO items (sku, name, unit, tax_class, active)
                               VALUES ('RED-LAMP', '', '', '', true), ('BLUE-CUP', '', '', '', true)""")
        await tx.db.execute("INSERT INTO stock VALUES ('RED-LAMP', 'BER', 10), ('BLUE-CUP', 'BER', 10)")


async def test_an_event_that_the_relay_sent_twice_takes_effect_once(database: Database):
    noted = Noted()
    loop = await fed(database, noted)
    once = uuid4()
    await loop.take(order_record(1, 0, id=once), order_record(1, 1, id=once))
    await loop.take(order_record(1, 2, id=once))
    assert noted.batches == [[order_id(1)]]
    assert await account(database) == {"applied": 1, "duplicate": 2}


async def test_what_is_not_heard_is_passed_over_and_counted_with_the_next_batch(database: Database):
    noted = Noted()
    loop = await Fed(database, noted.note, [ORDERS], hears=frozenset({ORDERS.type_of(OrderPlaced)})).start()
    unheard = record(ORDERS, OrderClosed(occurred_at=datetime.now(UTC), order_id=order_id(7)), 0)
    await loop.take(unheard)
    assert await account(database) == {}  # no transaction for it
    await loop.take(order_record(1, 1))
    assert noted.batches == [[order_id(1)]]
    assert await account(database) == {"applied": 1, "skipped": 1}
    assert await value(database, "SELECT count(*) FROM inbox") == 1


async def test_what_is_not_heard_is_told_to_the_database_soon_even_when_nothing_follows(database: Database):
    noted = Noted()
    loop = await Fed(database, noted.note, [ORDERS], hears=frozenset({ORDERS.type_of(OrderPlaced)})).start()
    closed = OrderClosed(occurred_at=datetime.now(UTC), order_id=order_id(7))
    await loop.take(record(ORDERS, closed, 0), record(ORDERS, closed, 1))
    await loop.loop._tell_database()
    await loop.loop._tell_database()
    assert await account(database) == {"skipped": 2}
    await loop.take(order_record(1, 2))
    assert await account(database) == {"applied": 1, "skipped": 2}


async def test_a_batch_delivered_again_changes_nothing(database: Database):
    noted = Noted()
    records = [order_record(1, id=uuid4()), order_record(2, id=uuid4())]
    await (await fed(database, noted)).take(*records)
    outbox = await said(database)
    after_restart = await fed(database, noted)
    await after_restart.take(*records)
    async with database.transaction() as tx:  # and as if the offsets had been reset
        await tx.db.execute("UPDATE consumer_offsets SET next_offset = 0, applied = 0")
    await (await fed(database, noted)).take(*records)
    assert noted.batches == [TWO_MESSAGES]
    assert await account(database) == {"duplicate": 2}
    assert await said(database) == outbox


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"ce_id": None}, "header 'ce_id' is missing"),
        ({"ce_id": b"no uuid"}, "unreadable header"),
        ({"ce_time": b"2026-03-01T12:00:00"}, "no time zone"),
        ({"ce_time": b"yesterday"}, "unreadable header"),
        ({"ce_sequence": b"0"}, "below 1"),
        ({"ce_type": b"\xff"}, "unreadable header"),
        ({"ce_type": b"stranger.Happened.v1"}, "type stranger.Happened.v1"),
    ],
)
async def test_only_the_poisoned_message_of_a_batch_is_set_aside(
    database: Database, headers: dict[str, bytes | None], reason: str
):
    loop = await fed(database, Noted())
    await loop.take(order_record(1), order_record(2, headers=headers), order_record(3))
    assert await noted_orders(database) == {order_id(1), order_id(3)}
    assert await account(database) == {"applied": 2, "dead_lettered": 1}
    (letter,) = await dead(database)
    assert letter["aggregatetype"] == "isthmus.test.dead-letter.v1"
    told = dict(letter["headers"])
    assert reason in base64.b64decode(told["dlq_reason"]).decode()
    assert base64.b64decode(told["dlq_offset"]) == b"1"
    assert letter["payload"] == order_record(2).value


async def test_bodies_that_cannot_be_read_are_set_aside_byte_for_byte(database: Database):
    loop = await fed(database, Noted())
    bodies = [b"", None, b"{", b"[]", b"\xff\xfe", b"{}", b"\x00" * 1_000_000]
    records = [order_record(n, n) for n in range(len(bodies))]
    for one, body in zip(records, bodies, strict=True):
        one.value = body
    await loop.take(*records, order_record(9, len(bodies)))
    assert [letter["payload"] for letter in await dead(database)] == [body or b"" for body in bodies]
    assert await noted_orders(database) == {order_id(9)}


@pytest.mark.parametrize("key", [b"a\x00b", b"\xff\xfe", None])
async def test_a_message_with_an_unusable_key_does_not_hold_up_the_rest(database: Database, key: bytes | None):
    loop = await fed(database, Noted())
    strange = order_record(1)
    strange.key, strange.value = key, b"{"
    await loop.take(strange, order_record(2))
    assert await account(database) == {"applied": 1, "dead_lettered": 1}


async def test_a_message_with_strange_headers_does_not_hold_up_the_rest(database: Database):
    loop = await fed(database, Noted())
    strange = order_record(1)
    strange.headers = [*strange.headers, ("ce_nothing", None), ("zero\x00", b"\x00"), ("twice", b"1"), ("twice", b"2")]
    strange.value = b"{"
    await loop.take(strange, order_record(2))
    assert await account(database) == {"applied": 1, "dead_lettered": 1}


async def test_a_handler_that_raises_at_one_message_loses_that_one_only(database: Database):
    noted = Noted(fails_at={order_id(2)})
    loop = await fed(database, noted)
    await loop.take(order_record(1), order_record(2), order_record(3))
    assert await noted_orders(database) == {order_id(1), order_id(3)}
    assert await account(database) == {"applied": 2, "dead_lettered": 1}
    assert noted.batches == [
        [order_id(1), order_id(2), order_id(3)], [order_id(1)], *[[order_id(2)]] * 3, [order_id(3)]
    ]  # fmt: skip


async def test_a_handler_that_recovers_loses_nothing(database: Database):
    noted = Noted(fails_at={order_id(1)})
    loop = await fed(database, noted)
    note = noted.note

    async def recovering(tx: Tx, batch: Batch[OrderEvent]) -> None:
        if len(noted.batches) == 2:
            noted.fails_at.clear()
        await note(tx, batch)

    loop.loop._subscription.handle = recovering
    await loop.take(order_record(1))
    assert await account(database) == {"applied": 1}


async def test_an_infrastructure_error_sets_nothing_aside_even_while_stopping(database: Database):
    noted = Noted(fails_at={order_id(1)}, error=ConnectionResetError("gone"))
    loop = await fed(database, noted)
    loop.loop.stop()
    with pytest.raises(ConnectionResetError):
        await loop.take(order_record(1), order_record(2))
    assert await account(database) == {}
    assert await dead(database) == []


async def test_an_unknown_type_of_a_known_source_is_skipped_and_counted(database: Database):
    loop = await fed(database, Noted())
    await loop.take(order_record(1, headers={"ce_type": b"isthmus.order.OrderPraised.v1"}), order_record(2))
    assert await account(database) == {"applied": 1, "skipped": 1}
    assert await dead(database) == []


async def test_a_consumer_that_lost_its_partition_is_fenced(database: Database):
    slow, quick = await fed(database, Noted()), await fed(database, Noted())
    await quick.take(order_record(1))
    with pytest.raises(FencedError):
        await slow.take(order_record(1), order_record(2))
    assert await noted_orders(database) == {order_id(1)}
    assert await account(database) == {"applied": 1}


async def test_one_fenced_partition_takes_back_the_whole_batch(database: Database):
    slow, quick = await fed(database, Noted()), await fed(database, Noted())
    await quick.take(order_record(1, 0, partition=1))
    with pytest.raises(FencedError):
        await slow.take(order_record(2, 0), order_record(3, 0, partition=1))
    assert await noted_orders(database) == {order_id(1)}
    assert await account(database, 0) == {}


async def test_a_batch_over_two_partitions_advances_both(database: Database):
    loop = await fed(database, Noted())
    await loop.take(order_record(1, 0), order_record(2, 0, partition=1), order_record(3, 1, partition=1))
    assert (await account(database, 0), await account(database, 1)) == ({"applied": 1}, {"applied": 2})


async def test_the_brake_holds_a_consumer_that_would_set_everything_aside(database: Database):
    loop = await fed(database, Noted())
    poisoned = [order_record(n, n, headers={"ce_id": None}) for n in range(60)]
    with pytest.raises(BrakedError):
        await loop.take(*poisoned)
    assert len(await dead(database)) == brake.LIMIT
    assert await account(database) == {"dead_lettered": brake.LIMIT}
    assert await loop.loop._unready() is not None
    with pytest.raises(BrakedError):
        await loop.take(*poisoned)
    assert len(await dead(database)) == brake.LIMIT
    await (await fed(database, Noted())).take(*poisoned[:30])  # released by a restart, after a look
    assert len(await dead(database)) == 30


async def test_one_poison_in_500_does_not_brake(database: Database):
    loop = await fed(database, Noted())
    for begin in range(0, 3000, 500):
        missing: list[dict[str, bytes | None]] = [{"ce_id": None} if n == 7 else {} for n in range(500)]
        await loop.take(*(order_record(begin + n, begin + n, headers=missing[n]) for n in range(500)))
    assert await account(database) == {"applied": 2994, "dead_lettered": 6}


async def test_the_inbox_keeps_its_window_and_forgets_what_is_older(database: Database):
    loop = await fed(database, Noted())
    now = datetime.now(UTC)
    ages = {1: 0, 2: 3, 3: 9, 4: 5000}
    await loop.take(*(order_record(n, at=now - timedelta(days=days)) for n, days in ages.items()))
    async with database.transaction() as tx:
        await tx.db.execute("SELECT roll_inbox(7)")
        await tx.db.execute("SELECT roll_inbox(7)")  # safe to repeat
    assert await value(database, "SELECT count(*) FROM inbox") == 2
    await loop.take(order_record(5, 4, at=now), order_record(6, 5, at=now + timedelta(days=1)))
    assert await value(database, "SELECT count(*) FROM inbox") == 4
    tomorrow = await value(database, "SELECT to_regclass('inbox_' || to_char(current_date + 1, 'YYYYMMDD'))::text")
    assert tomorrow is not None


async def test_days_of_the_inbox_are_dropped_whole(database: Database):
    async with database.transaction() as tx:
        await tx.db.execute(
            "CREATE TABLE inbox_20200102 PARTITION OF inbox FOR VALUES FROM ('2020-01-02') TO ('2020-01-03')"
        )
        await tx.db.execute("SELECT roll_inbox(7)")
    assert await value(database, "SELECT to_regclass('inbox_20200102')") is None


async def test_what_the_handler_publishes_is_traced_to_its_cause(database: Database):
    async def answer(tx: Tx, batch: Batch[OrderEvent]) -> None:
        for message in batch:
            assert isinstance(message.event, OrderPlaced)
            tx.publish(HOLDS, held(message.event.order_id), cause=message, sequence=1)

    loop = await Fed(database, answer, [ORDERS]).start()
    cause = uuid4()
    await loop.take(order_record(1, id=cause))
    (row,) = await rows(database, "SELECT correlationid, causationid, traceparent FROM outbox")
    assert (row["correlationid"], row["causationid"]) == ("test", str(cause))
    assert row["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")


async def test_good_messages_elsewhere_do_not_release_the_brake(database: Database):
    loop = await fed(database, Noted())
    poisoned = [order_record(n, n, headers={"ce_id": None}) for n in range(brake.LIMIT + 1)]
    with pytest.raises(BrakedError):
        await loop.take(*poisoned)
    for begin in range(0, 2 * brake.WINDOW, 500):
        await loop.take(*(order_record(begin + n, begin + n, partition=1) for n in range(500)))
    with pytest.raises(BrakedError):
        await loop.take(poisoned[-1])
    assert len(await dead(database)) == brake.LIMIT
    assert (await account(database, 0), await account(database, 1)) == (
        {"dead_lettered": brake.LIMIT},
        {"applied": 2 * brake.WINDOW},
    )
