"""When deadlines are judged: with all that was in the log consumed, and never in the wake of an outage."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from shared import progress
from shared.consume import Due, Subscription
from shared.deadlines import GRACE, LATE
from shared.events.order import OrderEvent
from shared.kafka import Consumer
from shared.loop import ConsumerLoop
from shared.messages import Batch, Cause
from shared.positions import BeyondLogError
from shared.postgres import Database, Tx
from shared.progress import Place
from shared.topics import HOLDS, ORDERS
from tests.support.kernel import rows, wiring
from tests.support.orders import held, order_id

HERE, THERE = (ORDERS.name, 0), (ORDERS.name, 1)


@dataclass
class Log:
    """As much of Kafka as a loop asks between two batches: where its partitions begin and end."""

    ends: Mapping[Place, int] = field(default_factory=lambda: {HERE: 0, THERE: 0})
    sought: dict[Place, int] = field(default_factory=dict[Place, int])

    def assignment(self) -> set[Place]:
        return set(self.ends)

    async def begin(self, places: Iterable[Place]) -> dict[Place, int]:
        return dict.fromkeys(places, 0)

    async def end(self, places: Iterable[Place]) -> dict[Place, int]:
        return {place: self.ends[place] for place in places}

    def seek(self, place: Place, offset: int) -> None:
        self.sought[place] = offset


@dataclass
class Judged:
    """A consumer with deadlines, and when they were judged; its clock is turned by hand."""

    database: Database
    log: Log = field(default_factory=Log)
    due: list[Due] = field(default_factory=list[Due])
    loop: ConsumerLoop = field(init=False)
    now: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        subscription = Subscription("judged", [ORDERS], self.handle, self.judge)
        self.loop = ConsumerLoop(subscription, wiring(self.database))

    async def handle(self, tx: Tx, batch: Batch[OrderEvent]) -> None: ...

    async def judge(self, tx: Tx, due: Due) -> None:
        self.due.append(due)

    @property
    def kafka(self) -> Consumer:
        return cast(Consumer, self.log)

    async def assigned(self) -> None:
        self.loop._positions.assigned()
        await self.loop._seek(self.kafka)

    async def at(self, seconds: float) -> bool:
        """Whether deadlines were judged so many seconds after the start."""
        before = len(self.due)
        assert self.loop._subscription.judge is not None
        await self.loop._judge_deadlines(self.kafka, self.loop._subscription.judge, self.now + seconds)
        return len(self.due) > before

    async def consumed(self, number: int) -> None:
        self.loop._positions.at[HERE] = number


async def settled(database: Database) -> Judged:
    """One whose partitions were assigned long ago."""
    judged = Judged(database)
    await judged.assigned()
    judged.loop._watermark._next = judged.now
    return judged


async def wait_in_outbox(database: Database, seconds: float) -> None:
    """An event that a transaction left there so long ago."""
    async with database.transaction() as tx:
        tx.publish(HOLDS, held(order_id()), cause=Cause(id=order_id(), correlation_id="test"), sequence=1)
        await tx.flush()
        await tx.db.execute("UPDATE outbox SET recorded_at = now() - $1 * interval '1 s'", seconds)


async def relay(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.db.execute("DELETE FROM outbox")


async def test_deadlines_are_judged_once_what_was_in_the_log_is_consumed(database: Database):
    judged = await settled(database)
    judged.log.ends = {HERE: 3, THERE: 0}
    assert not await judged.at(0)
    await judged.consumed(2)
    assert not await judged.at(0.1)
    await judged.consumed(3)
    assert await judged.at(0.2)
    assert list(judged.due[0].partitions) == [0, 1]


async def test_nothing_is_judged_while_our_own_events_wait_for_the_relay_nor_soon_after(database: Database):
    judged = await settled(database)
    await wait_in_outbox(database, LATE + 1)
    assert not await judged.at(0)
    assert not await judged.at(GRACE / 2)
    assert not await judged.at(GRACE + 1)  # it waits still
    await relay(database)
    assert not await judged.at(GRACE + 2)
    assert not await judged.at(2 * GRACE + 1.5)
    assert await judged.at(2 * GRACE + 2.5)


async def test_an_event_that_is_on_its_way_holds_up_no_deadline(database: Database):
    judged = await settled(database)
    await wait_in_outbox(database, LATE / 5)
    assert await judged.at(0)


async def test_nothing_is_judged_soon_after_partitions_were_assigned(database: Database):
    judged = await settled(database)
    assert await judged.at(0)
    judged.now = time.monotonic()
    await judged.assigned()
    assert not await judged.at(1.5)
    assert not await judged.at(GRACE + 0.5)
    assert await judged.at(GRACE + 1.5)


async def test_a_reading_of_the_log_from_before_an_assignment_judges_nothing(database: Database):
    judged = await settled(database)
    judged.log.ends = {HERE: 3, THERE: 0}
    assert not await judged.at(0)
    await judged.assigned()
    await judged.consumed(3)
    assert not await judged.at(1)


# -- a log that ends too early -----------------------------------------------------------------------------------------


async def left_at(database: Database, offsets: dict[Place, int]) -> None:
    async with database.transaction() as tx:
        await progress.start(tx.db, "judged", offsets)


async def offsets(database: Database) -> list[Any]:
    return [tuple(row.values()) for row in await rows(database, "SELECT * FROM consumer_offsets ORDER BY partition")]


async def test_a_consumer_whose_offset_lies_beyond_the_log_refuses_and_says_so(database: Database):
    await left_at(database, {HERE: 5, THERE: 11})
    judged = Judged(database, Log({HERE: 10, THERE: 10}))
    before = await offsets(database)
    with pytest.raises(BeyondLogError, match="consumed up to 11, the log ends at 10"):
        await judged.assigned()
    assert "beyond the end" in str(await judged.loop._unready())
    assert (judged.log.sought, await offsets(database)) == ({}, before)


async def test_a_consumer_whose_log_was_restored_is_ready_and_goes_on(database: Database):
    await left_at(database, {HERE: 5, THERE: 11})
    judged = Judged(database, Log({HERE: 10, THERE: 10}))
    with pytest.raises(BeyondLogError):
        await judged.assigned()
    judged.log.ends = {HERE: 10, THERE: 11}  # consumed to the end exactly is all right
    await judged.assigned()
    assert await judged.loop._unready() is None
    assert judged.log.sought == {HERE: 5, THERE: 11}
