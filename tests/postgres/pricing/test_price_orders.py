"""A batch of order events in; rows, counters and answers out."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest

from services.pricing import commands, store
from services.pricing.discounts import Coupon
from services.pricing.handlers import learn_tax_classes, learn_tiers, price_orders
from shared.commands import command_cause
from shared.events.customer import CustomerRegistered, TierChanged
from shared.events.inventory import ItemRegistered
from shared.events.order import OrderCancelled, OrderEvent, OrderLine, OrderRejected
from shared.postgres import Database
from tests.postgres.pricing.world import (
    ANNA,
    BERT,
    LAMP,
    NOW,
    a_world,
    handle,
    kinds,
    messages,
    order_id,
    outbox,
    placed,
)

TEN = Coupon("TEN", percent=Decimal(10), limit_total=10)


def cancelled(number: int) -> OrderCancelled:
    return OrderCancelled(occurred_at=NOW, order_id=order_id(number))


async def used(database: Database, code: str) -> tuple[int, int]:
    """The coupon's counter, and the uses held."""
    async with database.reading() as db:
        counter = await db.fetchval("SELECT used FROM coupons WHERE code = $1", code)
        held = await db.fetchval("SELECT count(*) FROM coupon_uses WHERE coupon = $1 AND state = 'held'", code)
    return counter, held


async def test_an_order_is_answered_with_its_price_and_the_row_says_how(database: Database) -> None:
    await a_world(database)
    await handle(database, price_orders, placed(1, LAMP, OrderLine(line=2, sku="BLUE-CUP", quantity=2)))
    ((kind, key, sequence, body),) = await outbox(database)
    assert (kind, key, sequence, body["total"]) == ("OrderPriced", str(order_id(1)), 1, "29.00")
    assert body["tax"] == "4.63"  # 19 % contained in 20.00 and in 9.00
    async with database.reading() as db:
        row = await store.order_price(db, order_id(1))
    assert row is not None
    assert (row["state"], row["answer"]) == ("priced", body)


async def test_asking_twice_changes_nothing(database: Database) -> None:
    await a_world(database, TEN)
    for _ in range(2):
        await handle(database, price_orders, placed(1, coupon="TEN"), placed(1, coupon="TEN"))
    assert await kinds(database) == ["OrderPriced"]
    assert await used(database, "TEN") == (1, 1)


async def test_a_cancelled_order_gives_its_coupon_back_in_the_same_batch_or_later(database: Database) -> None:
    await a_world(database, Coupon("ONCE", percent=Decimal(10), limit_total=1, limit_per_customer=1))
    await handle(database, price_orders, placed(1, coupon="ONCE"), cancelled(1), cancelled(1))
    await handle(database, price_orders, placed(2, coupon="ONCE"))
    await handle(database, price_orders, cancelled(2), placed(3, coupon="ONCE"), placed(4, coupon="ONCE"))
    answers = [(kind, key, sequence) for kind, key, sequence, _ in await outbox(database)]
    one, two, three, four = (str(order_id(number)) for number in range(1, 5))
    assert answers == [
        ("OrderPriced", one, 1), ("CouponReleased", one, 2), ("OrderPriced", two, 1), ("CouponReleased", two, 2),
        ("OrderPriced", three, 1), ("PriceRefused", four, 1),
    ]  # fmt: skip
    assert await used(database, "ONCE") == (1, 1)


async def test_an_order_that_ended_before_it_was_seen_leaves_a_row_and_no_answer(database: Database) -> None:
    await a_world(database, TEN)
    await handle(database, price_orders, OrderRejected(occurred_at=NOW, order_id=order_id(1), reason="stock"))
    await handle(database, price_orders, placed(1, coupon="TEN"))
    assert await outbox(database) == []
    async with database.reading() as db:
        row = await store.order_price(db, order_id(1))
    assert row is not None
    assert row["state"] == "ended"
    assert await used(database, "TEN") == (0, 0)


async def test_a_coupon_for_ten_serves_ten_of_fifty_orders_in_concurrent_batches(database: Database) -> None:
    await a_world(database, TEN)
    buyers = [None, ANNA, BERT]
    batches = [[placed(5 * n + i, coupon="TEN", buyer=buyers[i % 3]) for i in range(5)] for n in range(10)]
    await asyncio.gather(*(handle(database, price_orders, *batch) for batch in batches))
    said = await kinds(database)
    assert (said.count("OrderPriced"), said.count("PriceRefused")) == (10, 40)
    assert await used(database, "TEN") == (10, 10)


async def test_a_customers_own_limit_holds_in_concurrent_batches(database: Database) -> None:
    await a_world(database, Coupon("EACH", percent=Decimal(10), limit_per_customer=2))
    orders = [placed(number, coupon="EACH", buyer=[ANNA, BERT][number % 2]) for number in range(20)]
    await asyncio.gather(*(handle(database, price_orders, order) for order in orders))
    assert (await kinds(database)).count("OrderPriced") == 4
    async with database.reading() as db:
        held = await db.fetch(
            "SELECT customer_id, count(*) FROM coupon_uses WHERE state = 'held' GROUP BY 1 ORDER BY 1"
        )
    assert [tuple(row) for row in held] == [(ANNA, 2), (BERT, 2)]


async def test_coupons_crossing_in_concurrent_batches_do_not_deadlock(database: Database) -> None:
    await a_world(database, Coupon("A", percent=Decimal(1)), Coupon("B", percent=Decimal(1)))
    there = [[placed(100 * n, coupon="A"), placed(100 * n + 1, coupon="B")] for n in range(1, 9)]
    back = [[placed(100 * n + 2, coupon="B"), placed(100 * n + 3, coupon="A")] for n in range(1, 9)]
    await asyncio.gather(*(handle(database, price_orders, *batch) for batch in there + back))
    assert await used(database, "A") == await used(database, "B") == (16, 16)


async def test_an_order_answered_by_two_at_once_is_answered_once(database: Database) -> None:
    await a_world(database, TEN)
    twice = [handle(database, price_orders, placed(1, coupon="TEN")) for _ in range(2)]
    outcomes = await asyncio.gather(*twice, return_exceptions=True)
    assert all(one is None or isinstance(one, asyncpg.UniqueViolationError) for one in outcomes)
    assert await kinds(database) == ["OrderPriced"]
    assert await used(database, "TEN") == (1, 1)


async def test_the_database_too_keeps_a_coupon_within_its_limit(database: Database) -> None:
    await a_world(database, TEN)
    async with database.reading() as db:
        with pytest.raises(asyncpg.CheckViolationError):
            await db.execute("UPDATE coupons SET used = 11 WHERE code = 'TEN'")


async def test_the_latest_price_of_the_list_with_the_highest_priority_wins(database: Database) -> None:
    await a_world(database)
    async with database.transaction() as tx:
        await commands.put_list(tx, "sale", "Sale", "EUR", 200)
        await commands.put_list(tx, "pounds", "Pounds", "GBP", 900)
        for price_list, sku, price, days in [
            ("sale", "RED-LAMP", "15.00", 2), ("sale", "RED-LAMP", "12.00", 4), ("retail", "BLUE-CUP", "5.00", 2),
            ("pounds", "BLUE-CUP", "1.00", 0),
        ]:  # fmt: skip
            since = NOW + timedelta(days=days)
            await commands.change_prices(tx, price_list, {sku: Decimal(price)}, since, command_cause())
    cup = OrderLine(line=2, sku="BLUE-CUP", quantity=1)
    orders = [placed(day, LAMP, cup, at=NOW + timedelta(days=day)) for day in range(6)]
    await handle(database, price_orders, *orders)
    totals = [body["total"] for _, _, _, body in await outbox(database)]
    assert totals == ["24.50", "24.50", "20.00", "20.00", "17.00", "17.00"]


async def test_tiers_and_tax_classes_are_learned_and_an_older_event_changes_nothing(database: Database) -> None:
    await a_world(database)
    registered = CustomerRegistered(occurred_at=NOW, customer_id=ANNA, channel="shop")
    await handle(database, learn_tiers, registered, TierChanged(occurred_at=NOW, customer_id=ANNA, tier="gold"))
    await handle(database, learn_tiers, TierChanged(occurred_at=NOW, customer_id=ANNA, tier="silver"))  # redriven: 1
    reduced = ItemRegistered(occurred_at=NOW, sku="RED-LAMP", name="Red lamp", tax_class="reduced")
    await handle(database, learn_tax_classes, reduced)
    await handle(database, price_orders, placed(1), placed(2, buyer=UUID(int=99)))
    (_, _, _, gold), (_, _, _, unknown) = await outbox(database)
    assert (gold["tier"], gold["total"], gold["tax"]) == ("gold", "19.00", "1.24")  # 7 % contained
    assert (unknown["tier"], unknown["total"]) == ("base", "20.00")


async def test_the_number_of_queries_does_not_grow_with_the_batch(database: Database) -> None:
    await a_world(database, TEN)
    counts: list[int] = []
    for first, size in [(0, 1), (10, 2), (100, 200)]:  # the first also asks for the types of columns
        queries: list[str] = []
        async with database.transaction() as tx:
            tx.db.add_query_logger(lambda record, seen=queries: seen.append(record.query))
            await price_orders(tx, messages(*life(first, size)))
        counts.append(len(queries))
    assert counts[1] == counts[2] <= 15


def life(first: int, size: int) -> list[OrderEvent]:
    """Orders with a coupon, placed and cancelled."""
    return [event for n in range(first, first + size) for event in (placed(n, coupon="TEN"), cancelled(n))]
