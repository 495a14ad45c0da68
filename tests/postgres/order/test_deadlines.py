"""The deadline and the capture race for the order's row: whoever is second must see what the first one did."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from services.order import handlers, store
from services.order.cancellations import Refusal, cancel
from services.order.payments.decisions import PaymentReport, settle
from services.order.payments.worker import Outcome, apply
from shared.consume import Due
from shared.messages import Cause
from shared.postgres import Database
from shared.topics import HOLDS, IDENTIFICATIONS, QUOTES
from tests.support.kernel import message, rows
from tests.support.orders import held, identified, priced
from tests.support.shop import answer, body, open_shop, order_row, paying_order, place, timeline

CAPTURED = PaymentReport("captured", Decimal("40.00"), "pay_1")


async def expire(database: Database) -> None:
    judge = handlers.build(300).subscriptions[0].judge
    assert judge is not None
    async with database.transaction() as tx:
        await judge(tx, Due(await tx.db.fetchval("SELECT clock_timestamp()"), range(12)))


async def cancel_order(database: Database, order_id: UUID) -> None:
    async with database.transaction() as tx:
        orders = await store.load(tx, [order_id], with_lines=True)
        events = cancel(orders.by_id[order_id], "requested", datetime.now(UTC))
        assert not isinstance(events, Refusal)
        orders.happen(
            tx, orders.by_id[order_id], events, Cause(id=order_id, correlation_id="cancel"), datetime.now(UTC)
        )
        await store.save(tx, orders)


async def make_due(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.db.execute("UPDATE orders SET deadline_at = now() - interval '1 s' WHERE deadline_at IS NOT NULL")


async def test_an_unanswered_order_expires_once_and_its_sealed_buyer_is_gone(database: Database):
    await open_shop(database)
    (order_id,) = await place(database, body())
    await expire(database)
    assert (await order_row(database, order_id))["state"] == "placed"
    await make_due(database)
    await expire(database)
    await expire(database)
    assert await timeline(database, order_id) == ["OrderPlaced", "OrderExpired"]
    row = await order_row(database, order_id)
    assert (row["reason"], row["deadline_at"]) == ("identification, price, stock", None)
    assert await rows(database, "SELECT 1 FROM sealed_buyers") == []


async def test_an_open_payment_is_closed_before_the_order_expires(database: Database):
    await open_shop(database)
    order_id = await paying_order(database)
    await make_due(database)
    await expire(database)
    row = await order_row(database, order_id)
    assert (row["state"], row["closing"]) == ("paying", True)
    await apply(database, [Outcome(order_id, PaymentReport("cancelled", Decimal("40.00"), "pay_1"))])
    assert (await timeline(database, order_id))[-2:] == ["PaymentDeclined", "OrderExpired"]


async def test_an_answer_that_comes_again_does_not_put_the_payments_deadline_off(database: Database):
    await open_shop(database)
    order_id = await paying_order(database)
    deadline = (await order_row(database, order_id))["deadline_at"]
    await answer(database, [order_id])
    assert (await order_row(database, order_id))["deadline_at"] == deadline
    assert await timeline(database, order_id) == ["OrderPlaced", "PaymentRequested"]


async def test_a_cancellation_that_waited_for_a_capture_gives_the_money_back(database: Database):
    """The second transaction waits for the order's row, and must then read its payment as the first one left it."""
    await open_shop(database)
    order_id = await paying_order(database)
    async with database.transaction() as tx:
        orders = await store.load(tx, [order_id])
        waiting = asyncio.create_task(cancel_order(database, order_id))
        while not await tx.db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 - a database does not tell
            await asyncio.sleep(0.005)
        events = settle(orders.by_id[order_id], CAPTURED, datetime.now(UTC))
        orders.happen(
            tx, orders.by_id[order_id], events, Cause(id=order_id, correlation_id="capture"), datetime.now(UTC)
        )
        await store.save(tx, orders)
    await waiting
    row = await order_row(database, order_id)
    assert (row["state"], row["payment_state"], row["captured"], row["owed"]) == ("cancelled", "captured", 40, 0)


async def after(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    await asyncio.sleep(seconds)
    await work


async def race(database: Database, tries: int, seed: int) -> None:
    """Expiry, capture and sometimes a cancellation at once, for many orders: money or goods, never both or neither."""
    dice = random.Random(seed)
    await open_shop(database)
    ids = await place(database, *(body(f"shop-{n}") for n in range(tries)))
    await answer(database, ids)
    for order_id in ids:
        await make_due(database)
        work = [expire(database), apply(database, [Outcome(order_id, CAPTURED)])]
        if dice.random() < 0.5:
            work.append(cancel_order(database, order_id))
        dice.shuffle(work)
        await asyncio.gather(*(after(dice.random() * 0.002, one) for one in work))
        row = await order_row(database, order_id)
        kept = Decimal(40) if row["state"] == "confirmed" else Decimal(0)
        assert (row["payment_state"], row["captured"], row["owed"]) == ("captured", 40, kept), (seed, row)
        assert row["state"] in ("confirmed", "cancelled"), (seed, row)
        events = await timeline(database, order_id)
        assert events.count("PaymentCaptured") == 1, (seed, events)


async def test_deadline_and_capture_never_leave_both_or_neither(database: Database):
    await race(database, 300, seed=random.randrange(10**6))


@pytest.mark.long
async def test_deadline_and_capture_never_leave_both_or_neither_1000_times(database: Database):
    await race(database, 1000, seed=random.randrange(10**6))


async def test_an_order_whose_last_answer_came_while_the_judge_waited_is_not_expired(database: Database):
    await open_shop(database)
    (order_id,) = await place(database, body())
    await make_due(database)
    join_answers = handlers.build(300).subscriptions[0].handle
    answers = [
        message(IDENTIFICATIONS, identified(order_id)), message(HOLDS, held(order_id)),
        message(QUOTES, priced(order=order_id)),
    ]  # fmt: skip
    async with database.transaction() as tx:
        await join_answers(tx, answers)
        waiting = asyncio.create_task(expire(database))
        while not await tx.db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 - a database does not tell
            await asyncio.sleep(0.005)
    await waiting
    row = await order_row(database, order_id)
    assert (row["state"], row["closing"]) == ("paying", False)
    assert row["deadline_at"] > datetime.now(UTC) + timedelta(seconds=200)
