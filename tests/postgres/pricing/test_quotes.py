"""Quotes are stored, redeemed by one order, given back, and forgotten."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from services.pricing import commands, quotes, store
from services.pricing.asks import Ask
from services.pricing.discounts import Coupon
from services.pricing.handlers import price_orders
from services.pricing.redemption import Quote
from services.pricing.rules import Priced, price
from shared.commands import command_cause
from shared.events.order import OrderCancelled, OrderConfirmed, OrderEvent, OrderLine
from shared.postgres import Database
from tests.postgres.pricing.world import (
    ANNA,
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

CUPS = OrderLine(line=2, sku="BLUE-CUP", quantity=2)


async def a_quote(database: Database, *lines: OrderLine, coupon: str | None = None, buyer: UUID | None = ANNA) -> Quote:
    """What ``placed(…)`` with the same lines, coupon and buyer costs, for a quarter of an hour."""
    ask, quote_id = Ask("EUR", [*(lines or (LAMP,))], "DE", NOW, buyer, coupon), uuid4()
    async with database.transaction() as tx:
        priced = price(await store.load_rules(tx.db, ask), ask)
        assert isinstance(priced, Priced)
        await quotes.insert(tx, quote_id, ask, priced, 15)
        quote = await quotes.get(tx.db, quote_id)
    assert quote is not None
    assert quote == Quote(quote_id, ask, priced, quote.valid_until)
    return quote


async def dearer(database: Database) -> None:
    async with database.transaction() as tx:
        prices = {"RED-LAMP": Decimal("25.00"), "BLUE-CUP": Decimal("5.00")}
        await commands.change_prices(tx, "retail", prices, NOW - timedelta(days=1), command_cause())


async def state(database: Database, quote: Quote) -> tuple[str, UUID | None]:
    async with database.reading() as db:
        found = await quotes.get(db, quote.quote_id)
    assert found is not None
    return found.state, found.order_id


def cancelled(number: int) -> OrderCancelled:
    return OrderCancelled(occurred_at=NOW, order_id=order_id(number))


def confirmed(number: int) -> OrderConfirmed:
    return OrderConfirmed(
        occurred_at=NOW, order_id=order_id(number), customer_id=ANNA, recipient_id=ANNA, total=Decimal(1),
        currency="EUR",
    )  # fmt: skip


async def reasons(database: Database) -> list[str]:
    """What orders were told: the total, or why there is none."""
    return [body.get("total") or body.get("reason") or kind for kind, _, _, body in await outbox(database)]


async def test_the_quoted_price_is_paid_after_prices_have_risen(database: Database) -> None:
    await a_world(database, Coupon("TEN", percent=Decimal(10)))
    quote = await a_quote(database, LAMP, CUPS, coupon="TEN")
    await dearer(database)
    for _ in range(2):
        order = placed(1, LAMP, CUPS, coupon="TEN", quote=quote.quote_id)
        await handle(database, price_orders, order, order)
    ((kind, _, sequence, body),) = await outbox(database)
    assert (kind, sequence, body["total"], body["quote_id"]) == ("OrderPriced", 1, "26.10", str(quote.quote_id))
    assert await state(database, quote) == ("held", order_id(1))
    async with database.reading() as db:
        assert await db.fetchval("SELECT used FROM coupons") == 1


async def test_a_quote_stored_by_an_older_release_is_answered_with_a_points_value_too(database: Database) -> None:
    await a_world(database)
    quote = await a_quote(database)
    async with database.transaction() as tx:
        await tx.db.execute("INSERT INTO point_values (currency, value) VALUES ('EUR', 0.02)")
        await tx.db.execute("UPDATE quotes SET priced = priced - 'point_value'")
    await handle(database, price_orders, placed(1, quote=quote.quote_id))
    ((_, _, _, body),) = await outbox(database)
    assert (body["total"], body["point_value"]) == ("20.00", "0.02")


async def test_a_quote_comes_back_when_its_order_ends_and_is_spent_when_it_is_confirmed(database: Database) -> None:
    await a_world(database)
    quote = await a_quote(database)
    await handle(database, price_orders, placed(1, quote=quote.quote_id))
    for _ in range(2):
        await handle(database, price_orders, cancelled(1))
        assert await state(database, quote) == ("open", None)
    await handle(database, price_orders, placed(2, quote=quote.quote_id), cancelled(1))
    for events in ([confirmed(2)], [confirmed(2), cancelled(2)], [cancelled(2)]):
        await handle(database, price_orders, *events)
        assert await state(database, quote) == ("spent", order_id(2))
    await handle(database, price_orders, placed(3, quote=quote.quote_id))
    assert await reasons(database) == ["20.00", "20.00", "quote_used"]


@pytest.mark.parametrize("size", [1, 3])
async def test_orders_racing_for_one_quote_one_wins(database: Database, size: int) -> None:
    await a_world(database)
    quote = await a_quote(database)
    batches = [[placed(size * n + i, quote=quote.quote_id) for i in range(size)] for n in range(8)]
    await asyncio.gather(*(handle(database, price_orders, *batch) for batch in batches))
    said = await reasons(database)
    assert (said.count("20.00"), said.count("quote_used")) == (1, 8 * size - 1)
    winner = next(key for kind, key, _, _ in await outbox(database) if kind == "OrderPriced")
    assert await state(database, quote) == ("held", UUID(winner))


async def test_while_one_order_takes_the_quote_another_waits_and_then_finds_it_used(database: Database) -> None:
    await a_world(database)
    quote = await a_quote(database)
    async with database.transaction() as tx:
        await price_orders(tx, messages(placed(1, quote=quote.quote_id)))
        other = asyncio.create_task(handle(database, price_orders, placed(2, quote=quote.quote_id)))
        done, _ = await asyncio.wait([other], timeout=0.5)
        assert not done
    await other
    told = {key: body.get("reason", kind) for kind, key, _, body in await outbox(database)}
    assert told == {str(order_id(1)): "OrderPriced", str(order_id(2)): "quote_used"}


async def test_a_backlog_does_not_expire_a_quote_and_a_late_order_finds_it_expired(database: Database) -> None:
    await a_world(database)
    first, second = await a_quote(database), await a_quote(database)
    async with database.reading() as db:
        await db.execute("UPDATE quotes SET valid_until = now() - interval '5 hours'")
        end: datetime = await db.fetchval("SELECT max(valid_until) FROM quotes")
    assert not await quotes.forget(database)  # it stays until the backlog is read
    just = end - timedelta(milliseconds=1)
    await handle(database, price_orders, placed(1, quote=first.quote_id), recorded_at=just)
    await handle(database, price_orders, placed(2, quote=second.quote_id), recorded_at=end)
    assert await reasons(database) == ["20.00", "quote_expired"]


async def test_quotes_and_coupons_crossing_in_concurrent_batches_do_not_deadlock(database: Database) -> None:
    await a_world(database, Coupon("A", percent=Decimal(1)), Coupon("B", percent=Decimal(1)))
    a = [await a_quote(database, coupon="A") for _ in range(4)]
    b = [await a_quote(database, coupon="B") for _ in range(4)]

    async def batch(first: int, *given: Quote) -> None:
        orders = [placed(first + n, coupon=quote.ask.coupon, quote=quote.quote_id) for n, quote in enumerate(given)]
        plain = [placed(first + 50, coupon="A"), placed(first + 51, coupon="B")]
        await handle(database, price_orders, *orders, *plain, *(cancelled(first + n) for n in range(0, 8, 2)))

    there, back = [*a, *b], [*reversed(b), *reversed(a)]
    await asyncio.gather(*(batch(100 * n, *(there if n % 2 else back)) for n in range(12)))
    async with database.reading() as db:
        used = await db.fetch("SELECT used, (SELECT count(*) FROM coupon_uses u WHERE u.coupon = c.code "
                              "AND u.state = 'held') AS held FROM coupons c")  # fmt: skip
        taken = await db.fetchval("SELECT count(*) FROM quotes WHERE state = 'held'")
        priced = await db.fetchval("SELECT count(*) FROM order_prices WHERE state = 'priced' AND coupon IS NOT NULL")
    assert all(row["used"] == row["held"] for row in used)
    assert sum(row["used"] for row in used) == priced == taken + 24


async def test_the_number_of_queries_does_not_grow_with_the_quotes(database: Database) -> None:
    await a_world(database, Coupon("TEN", percent=Decimal(10)))
    counts: list[int] = []
    for first, size in [(0, 1), (10, 2), (100, 60)]:  # the first also asks for the types of columns
        events: list[OrderEvent] = []
        for n in range(first, first + size):
            quote = await a_quote(database, coupon="TEN")
            events += [placed(n, coupon="TEN", quote=quote.quote_id), placed(n + 1000), cancelled(n)]
        queries: list[str] = []
        async with database.transaction() as tx:
            tx.db.add_query_logger(lambda record, seen=queries: seen.append(record.query))
            await price_orders(tx, messages(*events))
        counts.append(len(queries))
    assert counts[1] == counts[2] <= 17
    assert set(await kinds(database)) == {"OrderPriced", "CouponReleased"}


async def test_only_unused_quotes_long_past_are_forgotten_in_portions(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_world(database)
    monkeypatch.setattr(quotes, "FORGET_AT_ONCE", 2)
    fresh, used, *old = [await a_quote(database) for _ in range(5)]
    await handle(database, price_orders, placed(1, quote=used.quote_id))
    async with database.reading() as db:
        past = [quote.quote_id for quote in (used, *old)]
        await db.execute("UPDATE quotes SET valid_until = now() - interval '25 hours' WHERE quote_id = ANY($1)", past)
    assert [await quotes.forget(database) for _ in range(3)] == [True, False, False]
    async with database.reading() as db:
        left = {row["quote_id"] for row in await db.fetch("SELECT quote_id FROM quotes")}
    assert left == {fresh.quote_id, used.quote_id}
