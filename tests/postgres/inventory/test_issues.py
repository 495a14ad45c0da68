"""Goods that leave with parcels: rows and outbox add up, whatever comes twice, late or at the same time."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from services.inventory.commands import Movement
from services.inventory.handlers import hold_stock
from shared.events.order import OrderEvent, ParcelItem, ParcelShipped
from shared.postgres import Database
from shared.topics import ORDERS
from tests.support.kernel import Fed, message, record, rows, said, value
from tests.support.orders import NOW, ends, lines_cancelled, order_id, placed
from tests.support.warehouse import assert_stock_adds_up, level, moved, stocked, told

LAMP, CUPS = ("RED-LAMP", 1), ("BLUE-CUP", 2)
ISSUES = "SELECT sku, warehouse, quantity, reason, actor FROM movements WHERE kind = 'issue' ORDER BY id"


def shipped(*items: tuple[str, int], parcel: int = 1, warehouse: str = "BER", number: int = 1) -> ParcelShipped:
    return ParcelShipped(
        occurred_at=NOW, order_id=order_id(number), parcel=parcel, warehouse=warehouse, carrier="swift",
        items=tuple(ParcelItem(sku=sku, quantity=quantity) for sku, quantity in items),
    )  # fmt: skip


async def issued(database: Database) -> list[dict[str, Any]]:
    """What ``StockIssued`` said, in order."""
    query = "SELECT payload FROM outbox WHERE type = 'isthmus.inventory.StockIssued.v1' ORDER BY position"
    return [orjson.loads(row["payload"]) for row in await rows(database, query)]


async def state(database: Database, number: int = 1) -> str:
    return await value(database, "SELECT state FROM holds WHERE order_id = $1", order_id(number))


async def test_a_shipped_parcel_leaves_rows_movements_and_an_event_with_its_cost(database: Database):
    await stocked(database, {"RED-LAMP": 0, "BLUE-CUP": 5})
    await moved(database, Movement("RED-LAMP", "BER", 3, Decimal("12.50"), "EUR"))
    await told(database, placed(LAMP, CUPS))
    await told(database, shipped(LAMP, CUPS))
    assert (await level(database), await level(database, "BLUE-CUP")) == ((2, 0), (3, 0))
    reason = f"parcel 1 of order {order_id()}"
    assert [tuple(row) for row in await rows(database, ISSUES)] == [
        ("BLUE-CUP", "BER", -2, reason, "isthmus"),
        ("RED-LAMP", "BER", -1, reason, "isthmus"),
    ]
    (said_once,) = await issued(database)
    assert (said_once["parcel"], said_once["lines"]) == (1, [
        {"sku": "BLUE-CUP", "warehouse": "BER", "quantity": 2},
        {"sku": "RED-LAMP", "warehouse": "BER", "quantity": 1, "unit_cost": "12.500000", "currency": "EUR"},
    ])  # fmt: skip
    assert (await state(database), await value(database, "SELECT count(*) FROM hold_lines")) == ("issued", 0)
    await assert_stock_adds_up(database)


async def test_an_order_and_its_parcel_in_one_batch_and_again_are_issued_once(database: Database):
    await stocked(database, {"RED-LAMP": 5})
    batch = (placed(LAMP), shipped(LAMP), shipped(LAMP))
    await told(database, *batch)
    await told(database, *batch, *ends())
    assert await level(database) == (4, 0)
    assert [name for name, _, _ in await said(database) if name.startswith("Stock") and "Level" not in name] == [
        "StockHeld",
        "StockIssued",
    ]
    await assert_stock_adds_up(database)


async def test_a_redelivered_record_changes_nothing(database: Database):
    await stocked(database, {"RED-LAMP": 5})
    fed = await Fed(database, hold_stock, [ORDERS], "hold_stock").start()
    events: list[tuple[OrderEvent, UUID]] = [(placed(LAMP), uuid4()), (shipped(LAMP), uuid4())]
    for offset in (0, 2):  # the relay wrote them twice
        await fed.take(
            *(record(ORDERS, event, offset + n, id=id_, sequence=n + 1) for n, (event, id_) in enumerate(events))
        )
    assert (await level(database), len(await issued(database))) == ((4, 0), 1)
    await assert_stock_adds_up(database)


async def test_the_table_itself_refuses_a_parcel_issued_twice(database: Database):
    await stocked(database, {"RED-LAMP": 1})
    await told(database, placed(LAMP), shipped(LAMP))
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.transaction() as tx:
            await tx.db.execute("INSERT INTO hold_issues SELECT * FROM hold_issues")


async def test_a_parcel_that_took_along_too_much_says_so_in_its_movement(database: Database):
    await stocked(database, {"RED-LAMP": 9, "BLUE-CUP": 9})
    await told(database, placed(LAMP))
    await told(database, shipped(("RED-LAMP", 3), CUPS))
    ((sku, _, quantity, reason, _),) = [tuple(row) for row in await rows(database, ISSUES)]
    assert (sku, quantity) == ("RED-LAMP", -1)
    assert reason == f"parcel 1 of order {order_id()}; 2 more shipped than held"
    assert (await level(database), await level(database, "BLUE-CUP")) == ((8, 0), (9, 0))
    await assert_stock_adds_up(database)


async def test_a_parcel_of_an_order_never_seen_is_answered_and_remembered(database: Database):
    await stocked(database, {"RED-LAMP": 1})
    await told(database, shipped(LAMP))
    await told(database, shipped(LAMP), placed(LAMP))
    (answer,) = await issued(database)
    assert (answer["lines"], await level(database), await state(database)) == ([], (1, 0), "released")
    await assert_stock_adds_up(database)


async def test_a_part_cancelled_before_stays_and_the_rest_leaves(database: Database):
    await stocked(database, {"RED-LAMP": 1, "BLUE-CUP": 2})
    await told(database, placed(LAMP, CUPS))
    await told(database, lines_cancelled(("BLUE-CUP", 1)), shipped(LAMP, CUPS))
    assert (await level(database), await level(database, "BLUE-CUP")) == ((0, 0), (1, 0))
    assert await state(database) == "issued"
    await assert_stock_adds_up(database)


async def test_an_issue_leaves_the_average_cost_and_a_receipt_mixes_with_what_is_left(database: Database):
    await stocked(database, {"RED-LAMP": 0})
    await moved(database, Movement("RED-LAMP", "BER", 4, Decimal(10), "EUR"))
    await told(database, placed(("RED-LAMP", 3)), shipped(("RED-LAMP", 3)))
    assert await value(database, "SELECT unit_cost FROM items") == 10
    await moved(database, Movement("RED-LAMP", "BER", 1, Decimal(20), "EUR"))  # one at 10, one at 20
    assert await value(database, "SELECT unit_cost FROM items") == 15
    await told(database, placed(LAMP, number=2), shipped(LAMP, number=2))
    costs = [line["unit_cost"] for said_then in await issued(database) for line in said_then["lines"]]
    assert costs == ["10.000000", "15.000000"]


async def test_a_batch_of_parcels_needs_as_many_queries_as_one(database: Database):
    await stocked(database, {f"CUP-{n}": 100 for n in range(10)})
    everything = [placed(*((f"CUP-{n}", 1) for n in range(10)), number=n) for n in range(40)]
    await told(database, *everything)
    counts: list[int] = []
    for numbers in ([0], [1], range(2, 40)):  # the first also asks what the types of the columns are
        parcels = [shipped(*((f"CUP-{n}", 1) for n in range(10)), number=number) for number in numbers]
        counts.append(await _queries(database, *parcels))
    assert counts[1] == counts[2]
    await assert_stock_adds_up(database)


async def _queries(database: Database, *events: OrderEvent) -> int:
    """How many queries one batch of these takes."""
    seen: list[str] = []
    async with database.transaction() as tx:

        def note(query: Any) -> None:
            seen.append(query.query)

        with tx.db.query_logger(note):
            await hold_stock(tx, [message(ORDERS, event) for event in events])
    return len(seen)


async def test_parcels_adjustments_receipts_and_ends_at_the_same_time_add_up(database: Database):
    skus = [f"CUP-{n}" for n in range(8)]
    await stocked(database, dict.fromkeys(skus, 1000))
    dice = random.Random(7)
    asked = {number: [(sku, 1) for sku in dice.sample(skus, 5)] for number in range(200)}
    await told(database, *(placed(*lines, number=number) for number, lines in asked.items()))

    def batch(first: int) -> list[OrderEvent]:
        events: list[OrderEvent] = [shipped(*asked[number], number=number) for number in range(first, first + 10)]
        events += [dice.choice(ends(number)) for number in range(first, first + 10, 5)]
        dice.shuffle(events)
        return events

    batches = [batch(first) for first in range(0, 200, 10)]
    receipts = [[Movement(sku, "BER", 1, Decimal(3), "EUR") for sku in dice.sample(skus, 6)] for _ in range(20)]
    counts = [[Movement(sku, "BER", -1, reason="count") for sku in dice.sample(skus, 6)] for _ in range(20)]
    await asyncio.gather(
        *(told(database, *one) for one in batches), *(told(database, *one) for one in batches),
        *(moved(database, *one) for one in receipts), *(moved(database, *one, kind="adjustment") for one in counts),
    )  # fmt: skip
    assert await value(database, "SELECT sum(reserved) FROM stock") == 0
    ended = await rows(database, "SELECT state, count(*) AS n FROM holds GROUP BY state")
    assert sum(row["n"] for row in ended) == 200
    assert {row["state"] for row in ended} == {"issued", "released"}
    units = await value(database, "SELECT -sum(quantity)::int FROM movements WHERE kind = 'issue'")
    assert units == 5 * next(row["n"] for row in ended if row["state"] == "issued")
    assert units == await value(database, "SELECT sum(units)::int FROM hold_issues")
    await assert_stock_adds_up(database)
