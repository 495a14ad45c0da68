"""Points on a database: taken, given back and earned once, whatever is redelivered or comes at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from shared.events.customer import BuyerIdentified, BuyerRefused, PointsReleased, PointsSettled
from shared.events.order import CancelledLine, OrderLinesCancelled
from shared.messages import Message
from shared.postgres import is_infrastructure
from shared.topics import IDENTIFICATIONS, ORDERS
from tests.postgres.customer.conftest import NOON, message, order_id

if TYPE_CHECKING:
    from tests.postgres.customer.conftest import World

PURSE = "SELECT points_balance, points_held FROM customers WHERE customer_id = $1"
ENTRIES = "SELECT kind, points FROM points_entries WHERE customer_id = $1 AND order_id IS NOT NULL ORDER BY number"
SUMS = """
SELECT count(*) FROM customers c
WHERE points_balance <> (SELECT coalesce(sum(points), 0) FROM points_entries p WHERE p.customer_id = c.customer_id)
   OR points_held <> (SELECT coalesce(sum(i.points_held), 0) FROM identifications i
                      WHERE i.customer_id = c.customer_id AND i.state = 'identified')
"""


def part_cancelled(order: str, points: int) -> Message[Any]:
    line = CancelledLine(line=1, sku="RED-LAMP", quantity=1, amount=Decimal(5))
    event = OrderLinesCancelled(
        occurred_at=NOON, order_id=order_id(order), lines=(line,), amount=Decimal(5), currency="EUR", points=points
    )
    return message(ORDERS, event, sequence=7)


async def said_of(world: World, order: str) -> list[tuple[str, int]]:
    """Classes of answers to an order, with their sequences."""
    said = await world.said(IDENTIFICATIONS)
    return [(type(event).__name__, sequence) for event, sequence in said if event.order_id == order_id(order)]


async def test_points_leave_the_balance_come_back_and_are_never_promised_twice(world: World) -> None:
    alice = await world.customer(balance=500)
    await world.take(
        world.sealed("lamps", customer_id=alice, points=300), world.sealed("cups", customer_id=alice, points=201)
    )
    assert (await world.answer("lamps")).points_held == 300
    refused = await world.answer("cups")
    assert isinstance(refused, BuyerRefused)
    assert refused.reason == "points"
    assert await world.rows(PURSE, alice) == [(200, 300)]
    await world.take(world.cancelled("lamps"), world.cancelled("lamps"))
    await world.take(world.cancelled("lamps"))
    ((released, sequence),) = [one for one in await world.said(IDENTIFICATIONS) if isinstance(one[0], PointsReleased)]
    assert (released.points, sequence) == (300, 2)
    assert await world.rows(PURSE, alice) == [(500, 0)]
    assert await world.rows(ENTRIES, alice) == [("redeemed", -300), ("released", 300)]
    assert await world.rows("SELECT reason, actor, order_id, occurred_at FROM points_entries WHERE points < 0") == [
        (None, None, order_id("lamps"), NOON)
    ]


async def test_concurrent_orders_take_no_more_points_than_there_are(world: World) -> None:
    alice = await world.customer(balance=500)
    await asyncio.gather(*(world.take(world.sealed(f"{n}", customer_id=alice, points=100)) for n in range(8)))
    answers = [event for event, _ in await world.said(IDENTIFICATIONS)]
    assert sum(isinstance(event, BuyerIdentified) for event in answers) == 5
    assert await world.rows(PURSE, alice) == [(0, 500)]


async def test_a_settled_order_spends_and_earns_once(world: World) -> None:
    alice = await world.customer(balance=500)
    await world.take(world.sealed("lamps", customer_id=alice, points=300))
    settled = world.settled("lamps", 47)
    await world.take(settled, settled)
    await world.take(settled, world.cancelled("lamps"))
    answer = await world.answer("lamps")
    assert answer == PointsSettled(
        occurred_at=NOON, order_id=order_id("lamps"), customer_id=alice, earned=47, redeemed=300
    )
    assert await said_of(world, "lamps") == [("BuyerIdentified", 1), ("PointsSettled", 2)]
    assert await world.rows(PURSE, alice) == [(247, 0)]
    assert await world.rows(ENTRIES, alice) == [("redeemed", -300), ("earned", 47)]
    assert await world.rows("SELECT state, points_held FROM identifications") == [("settled", 0)]


async def test_guests_zero_amounts_and_unknown_orders_are_answered_too(world: World) -> None:
    await world.take(world.sealed("lamps"), world.sealed("cups"))
    await world.take(world.settled("lamps", 99), world.settled("cups", 0), world.settled("jars", 5))
    for order in ("lamps", "cups", "jars"):
        answer = await world.answer(order)
        assert isinstance(answer, PointsSettled)
        assert (answer.earned, answer.redeemed) == (0, 0)
    assert await world.rows("SELECT * FROM points_entries") == []


async def test_parts_come_back_and_the_rest_is_spent(world: World) -> None:
    alice = await world.customer(balance=500)
    await world.take(world.sealed("lamps", customer_id=alice, points=300), part_cancelled("cups", 5))
    await world.take(part_cancelled("lamps", 100), part_cancelled("lamps", 50))
    await world.take(world.settled("lamps", 10))
    assert await world.rows(PURSE, alice) == [(360, 0)]
    assert (await world.answer("lamps")).redeemed == 150
    assert await said_of(world, "lamps") == [
        ("BuyerIdentified", 1), ("PointsReleased", 2), ("PointsReleased", 3), ("PointsSettled", 4),
    ]  # fmt: skip
    assert await world.rows(SUMS) == [(0,)]
    assert await said_of(world, "cups") == []
    assert await world.rows("SELECT order_id FROM identifications") == [(order_id("lamps"),)]


async def test_concurrent_batches_of_the_same_orders_in_any_order_settle_each_once(world: World) -> None:
    customers = [await world.customer(balance=1000) for _ in range(4)]
    buyers: list[UUID] = [customers[number % 4] for number in range(16)]
    await world.take(*(world.sealed(f"{n}", customer_id=buyer, points=10) for n, buyer in enumerate(buyers)))
    settled: Sequence[Message[Any]] = [world.settled(f"{n}", 100) for n in range(16)]
    cancelled = [world.cancelled(f"{n}") for n in range(0, 16, 5)]
    batches = [settled if number % 2 else settled[::-1] for number in range(5)]
    async with world.database.transaction() as tx:
        await tx.db.execute("SELECT FROM customers FOR UPDATE")  # until all batches are under way
        taking = [asyncio.create_task(world.take(*batch)) for batch in [*batches, cancelled]]
        _, waiting = await asyncio.wait(taking, timeout=1)
        assert len(waiting) == len(taking)
    await asyncio.gather(*taking)
    assert await world.rows(SUMS) == [(0,)]
    answers = [event for event, _ in await world.said(IDENTIFICATIONS) if isinstance(event, PointsSettled)]
    assert len(answers) == len({event.order_id for event in answers}) == 16
    earned = sum(event.earned for event in answers)
    assert await world.rows("SELECT sum(points)::int FROM points_entries WHERE kind = 'earned'") == [(earned,)]
    for n in range(16):
        sequences = [sequence for _, sequence in await said_of(world, f"{n}")]
        assert sequences == list(range(1, len(sequences) + 1))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE customers SET points_balance = -1",
        "UPDATE customers SET points_held = -1",
        "INSERT INTO points_entries (entry_id, customer_id, points, kind, order_id, occurred_at) "
        "SELECT gen_random_uuid(), customer_id, 5, kind, order_id, now() FROM points_entries WHERE kind = 'earned'",
        "INSERT INTO points_entries (entry_id, customer_id, points, kind, occurred_at) "
        "SELECT gen_random_uuid(), customer_id, 5, 'goodwill', now() FROM customers",
    ],
    ids=["overdrawn", "held below nothing", "earned twice", "goodwill without a reason"],
)
async def test_the_database_guards_the_ledger_too(world: World, statement: str) -> None:
    alice = await world.customer()
    await world.take(world.sealed("lamps", customer_id=alice))
    await world.take(world.settled("lamps", 5))
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await world.rows(statement)


async def test_points_of_a_merged_customer_are_the_other_ones(world: World) -> None:
    alice, old = await world.customer(balance=100), uuid4()
    async with world.database.transaction() as tx:
        await tx.db.execute("INSERT INTO aliases VALUES ($1, $2)", old, alice)
    await world.take(world.sealed("lamps", customer_id=old, points=40))
    await world.take(world.settled("lamps", 9, customer=old))
    assert (await world.answer("lamps")).customer_id == alice
    assert await world.rows(PURSE, alice) == [(69, 0)]


HOLDS_WITHOUT_ENTRY = """
WITH held AS (
    INSERT INTO identifications (order_id, state, version, customer_id, points_held, occurred_at)
    VALUES (gen_random_uuid(), 'identified', 1, $1, 100, now())
)
UPDATE customers SET points_held = points_held + 100 WHERE customer_id = $1
"""
GIVES_BACK_WITHOUT_ENTRY = """
WITH ended AS (UPDATE identifications SET state = 'ended', points_held = 0 WHERE customer_id = $1)
UPDATE customers SET points_held = points_held - 30 WHERE customer_id = $1
"""


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE customers SET points_held = points_held + 100 WHERE customer_id = $1",
        HOLDS_WITHOUT_ENTRY,
        GIVES_BACK_WITHOUT_ENTRY,
    ],
    ids=["more than orders hold", "held, not taken", "given back, not booked"],
)
async def test_a_process_of_the_release_before_the_ledger_makes_and_loses_no_points(
    world: World, statement: str
) -> None:
    alice = await world.customer(balance=130)
    await world.take(world.sealed("lamps", customer_id=alice, points=30))
    with pytest.raises(asyncpg.PostgresError) as refused:
        await world.rows(statement, alice)
    assert is_infrastructure(refused.value)  # so that its consumer waits, and sets no message aside
    assert await world.rows(PURSE, alice) == [(100, 30)]


async def test_points_taken_and_earned_in_one_batch_are_no_process_of_an_old_release(world: World) -> None:
    alice = await world.customer(balance=100)
    await world.take(
        world.sealed("cups", customer_id=alice), world.settled("cups", 300),
        world.sealed("lamps", customer_id=alice, points=100), part_cancelled("lamps", 40),
        world.sealed("jars", customer_id=alice, points=50), world.cancelled("jars"),
    )  # fmt: skip
    assert await world.rows(PURSE, alice) == [(340, 60)]
