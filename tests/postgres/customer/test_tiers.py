"""Tiers on a database rise with settlements, fall as business time passes, and are said once."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from services.customer import handlers, ledger, reviews
from services.customer.registry import Programme
from shared.consume import Due
from shared.events.customer import TierChanged
from shared.topics import CUSTOMERS, ORDERS
from tests.postgres.customer.conftest import MASKS, NOON, RECORDED_AT

if TYPE_CHECKING:
    from tests.postgres.customer.conftest import World

CLOCK = "SELECT at FROM business_clock"


def day(number: float) -> datetime:
    return NOON + timedelta(days=number)


async def buys(world: World, customer: UUID, order: str, amount: int, on: float) -> None:
    await world.take(world.sealed(order, customer_id=customer))
    await world.take(world.settled(order, amount, day(on)))


async def read(world: World, *partitions: int) -> None:
    """These partitions of orders have been read to their ends; all of them where none is named."""
    (judge,) = [one.judge for one in handlers.build(world.keyring, MASKS).subscriptions if one.judge]
    async with world.database.transaction() as tx:
        now = await tx.db.fetchval("SELECT clock_timestamp()")
        await judge(tx, Due(now, partitions or range(ORDERS.partitions)))


async def review(world: World) -> int:
    """All is read, and tiers are looked at again."""
    await ledger.read_on(world.database)
    await read(world)
    await ledger.read_on(world.database)
    async with world.database.transaction() as tx:
        return await reviews.review(tx, world.keyring, Programme())


async def tiers(world: World, customer: UUID) -> list[tuple[str, float, int]]:
    """What was said: tier, on which day, and the sequence."""
    return [
        (event.tier, (event.occurred_at - NOON) / timedelta(days=1), sequence)
        for event, sequence in await world.said(CUSTOMERS)
        if isinstance(event, TierChanged) and event.customer_id == customer
    ]


async def test_a_tier_rises_and_falls_with_business_time(world: World) -> None:
    alice, bob = await world.customer(), await world.customer()
    await buys(world, alice, "lamps", 1600, on=0)
    await buys(world, alice, "cups", 400, on=100)
    assert await tiers(world, alice) == [("silver", 0, 2), ("gold", 100, 3)]
    assert await review(world) == 0
    await buys(world, bob, "jars", 1, on=364.9)
    assert await review(world) == 0
    await buys(world, bob, "rugs", 1, on=365)
    assert await review(world) == 1
    assert await review(world) == 0
    assert (await tiers(world, alice))[2:] == [("base", 365, 4)]
    assert await world.rows("SELECT tier, tier_review_at FROM customers WHERE customer_id = $1", alice) == [
        ("base", None)
    ]


async def test_a_replay_of_old_times_computes_the_tiers_of_then(world: World) -> None:
    alice = await world.customer()
    for number in range(6):  # 120 every hundred days: never 500 within a year, though 720 in all
        await buys(world, alice, f"{number}", 120, on=100 * number - 1000)
    assert await tiers(world, alice) == []
    assert await world.rows(CLOCK) == [(day(-500),)]
    await world.take(*(world.sealed(f"much {n}", customer_id=alice) for n in range(3)))
    await world.take(*(world.settled(f"much {n}", 100, day(n - 499)) for n in range(3)))
    assert await tiers(world, alice) == [("silver", -499, 2)]


async def test_goodwill_makes_no_tier(world: World) -> None:
    alice = await world.customer(balance=5000)
    await buys(world, alice, "lamps", 1, on=0)
    assert await tiers(world, alice) == []


async def test_several_replicas_review_each_customer_once(world: World) -> None:
    customers = [await world.customer() for _ in range(8)]
    for number, one in enumerate(customers):
        await buys(world, one, f"{number}", 600, on=number)
    await buys(world, await world.customer(), "later", 1, on=1000)
    await asyncio.gather(*(review(world) for _ in range(4)))
    assert [await tiers(world, one) for one in customers] == [
        [("silver", number, 2), ("base", number + 365, 3)] for number in range(8)
    ]


async def test_reviews_come_in_bounded_batches_the_longest_due_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviews, "AT_ONCE", 3)
    customers = [await world.customer() for _ in range(5)]
    for number, one in enumerate(customers):
        await buys(world, one, f"{number}", 600, on=-number)
    await buys(world, await world.customer(), "later", 1, on=1000)
    assert await review(world) == 3
    fallen = [len(await tiers(world, one)) == 2 for one in customers]
    assert fallen == [False, False, True, True, True]
    worker = reviews.tier_reviews(world.database, world.keyring, Programme())
    assert await worker._turn() is False  # the two that were left
    assert await world.rows("SELECT count(*) FROM customers WHERE tier <> 'base'") == [(0,)]


async def test_settlements_of_one_customer_in_two_batches_lose_no_points(world: World) -> None:
    alice = await world.customer()
    await world.take(*(world.sealed(f"{n}", customer_id=alice) for n in range(10)))
    await asyncio.gather(*(world.take(world.settled(f"{n}", 50, day(n / 24))) for n in range(10)))
    ((tier, _, sequence),) = await tiers(world, alice)
    assert (tier, sequence) == ("silver", 2)
    assert await world.rows(CLOCK) == [(day(9 / 24),)]


async def test_the_clock_is_written_once_an_hour_and_never_goes_back(world: World) -> None:
    alice = await world.customer()
    await buys(world, alice, "lamps", 1, on=1)
    written = await world.rows("SELECT xmin::text FROM business_clock")
    await buys(world, alice, "cups", 1, on=1 + 0.9 / 24)
    await buys(world, alice, "jars", 1, on=-50)
    assert await world.rows("SELECT xmin::text FROM business_clock") == written
    await buys(world, alice, "rugs", 1, on=1 + 1 / 24)
    assert await world.rows(CLOCK) == [(day(1 + 1 / 24),)]
    async with world.database.transaction() as tx:  # a batch that read the clock before others moved it on
        await tx.db.execute(ledger.MOVE_CLOCK, day(0.5))
    assert await world.rows(CLOCK) == [(day(1 + 1 / 24),)]


async def test_a_date_in_the_future_does_not_make_everybody_s_points_old(world: World) -> None:
    alice, bob = await world.customer(), await world.customer()
    await buys(world, alice, "lamps", 600, on=0)
    await buys(world, bob, "cups", 1, on=365 * 60)
    assert await world.rows(CLOCK) == [(RECORDED_AT,)]


async def test_a_settlement_of_the_future_takes_no_tier_and_earns_now(world: World) -> None:
    alice = await world.customer()
    await buys(world, alice, "lamps", 2000, on=0)
    await buys(world, alice, "cups", 10, on=365 * 60)
    assert await tiers(world, alice) == [("gold", 0, 2)]
    assert await world.rows("SELECT max(occurred_at) FROM points_entries") == [(RECORDED_AT,)]


async def test_a_partition_that_is_read_ahead_of_others_lowers_no_tier(world: World) -> None:
    alice, bob = await world.customer(), await world.customer()
    await buys(world, alice, "lamps", 600, on=0)
    await buys(world, bob, "jars", 1, on=366)
    worker = reviews.tier_reviews(world.database, world.keyring, Programme())
    await worker._turn()
    await read(world, *range(ORDERS.partitions - 1))  # in the last one waits what alice bought on day 364
    await worker._turn()
    await buys(world, alice, "cups", 600, on=364)
    await read(world)
    await worker._turn()
    assert await tiers(world, alice) == [("silver", 0, 2)]
    await buys(world, bob, "rugs", 1, on=730)
    assert await review(world) == 1
    assert (await tiers(world, alice))[1:] == [("base", 364 + 365, 3)]


async def test_what_was_read_before_the_clock_moved_on_proves_nothing(world: World) -> None:
    alice, bob = await world.customer(), await world.customer()
    await buys(world, alice, "lamps", 600, on=0)
    await ledger.read_on(world.database)
    await read(world)
    await buys(world, bob, "jars", 1, on=366)
    worker = reviews.tier_reviews(world.database, world.keyring, Programme())
    for _ in range(3):
        await worker._turn()
    assert await tiers(world, alice) == [("silver", 0, 2)]
    await read(world)
    await worker._turn()
    assert (await tiers(world, alice))[1:] == [("base", 365, 3)]


async def test_while_nothing_waits_for_it_nothing_is_noted(world: World) -> None:
    await read(world)
    await buys(world, await world.customer(), "lamps", 600, on=0)
    await review(world)
    noted = await world.rows("SELECT * FROM orders_read ORDER BY 1")
    assert len(noted) == ORDERS.partitions
    await read(world)
    assert await world.rows("SELECT * FROM orders_read ORDER BY 1") == noted


async def test_a_late_settlement_counts_in_its_own_year_only(world: World) -> None:
    alice, bob = await world.customer(), await world.customer()
    await buys(world, bob, "jars", 1, on=400)
    await review(world)
    await buys(world, alice, "lamps", 600, on=10)
    assert await tiers(world, alice) == []
    await buys(world, alice, "cups", 600, on=50)
    assert await tiers(world, alice) == [("silver", 400, 2)]
    await buys(world, bob, "rugs", 1, on=415.5)
    assert await review(world) == 1
    assert (await tiers(world, alice))[1:] == [("base", 415, 3)]
