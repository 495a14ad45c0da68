"""Stock under concurrency: never oversold, nothing lost, no deadlock."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal

import asyncpg
import pytest

from services.inventory import commands
from services.inventory.commands import Movement
from shared.commands import command_cause
from shared.events.inventory import ItemRegistered
from shared.events.order import OrderPlaced
from shared.postgres import Database
from tests.support.kernel import rows, said, value
from tests.support.orders import NOW, ends, lines_cancelled, order_id, placed
from tests.support.warehouse import assert_stock_adds_up, counter, level, moved, stocked, told

LAMP = ("RED-LAMP", 1)


async def test_200_buyers_of_10_lamps_leave_10_holds_and_190_reasons(database: Database):
    await stocked(database, {"RED-LAMP": 10})
    buyers = [placed(LAMP, number=n) for n in range(200)]
    await asyncio.gather(*(told(database, *buyers[begin : begin + 20]) for begin in range(0, 200, 20)))
    assert await level(database) == (10, 10)
    states = await rows(database, "SELECT state, count(*) AS n FROM holds GROUP BY state ORDER BY state")
    assert [(row["state"], row["n"]) for row in states] == [("held", 10), ("refused", 190)]
    answers = [name for name, _, _ in await said(database)]
    assert (answers.count("StockHeld"), answers.count("StockRefused")) == (10, 190)
    await assert_stock_adds_up(database)


async def test_the_table_itself_refuses_to_be_oversold(database: Database):
    await stocked(database, {"RED-LAMP": 1})
    for change in ("reserved = 2", "reserved = -1", "on_hand = -1"):
        with pytest.raises(asyncpg.CheckViolationError):
            async with database.transaction() as tx:
                await tx.db.execute(f"UPDATE stock SET {change}")


async def test_concurrent_adjustments_lose_nothing(database: Database):
    await stocked(database, {"RED-LAMP": 100})
    differences = [5, 5, -4, -6] * 10
    await asyncio.gather(
        *(moved(database, Movement("RED-LAMP", "BER", n, reason="count"), kind="adjustment") for n in differences)
    )
    assert await level(database) == (100 + sum(differences), 0)
    await assert_stock_adds_up(database)


async def test_orders_that_name_their_skus_in_any_order_do_not_deadlock(database: Database):
    skus = [f"CUP-{n}" for n in range(8)]
    await stocked(database, dict.fromkeys(skus, 1000))
    dice = random.Random(7)

    def batch(first: int) -> list[OrderPlaced]:
        return [
            placed(*((sku, 1) for sku in dice.sample(skus, 5)), number=n) for n in range(first, first + 10)
        ]  # fmt: skip

    batches = [batch(first) for first in range(0, 300, 10)]
    adjustments = [[Movement(sku, "BER", 1) for sku in dice.sample(skus, 6)] for _ in range(30)]
    await asyncio.gather(
        *(told(database, *one) for one in batches), *(moved(database, *one) for one in adjustments)
    )  # fmt: skip
    assert await value(database, "SELECT sum(reserved) FROM stock") == 1500
    await assert_stock_adds_up(database)


async def test_orders_and_their_ends_in_random_batches_leave_nothing_behind(database: Database):
    await stocked(database, {"RED-LAMP": 30, "BLUE-CUP": 30})
    await stocked(database, {"RED-LAMP": 5}, warehouse="LYO")
    dice = random.Random(3)
    for number in range(60):
        events = [placed(number=number), dice.choice(ends(number))]
        dice.shuffle(events)
        if dice.random() < 0.5:
            await told(database, *events)
        else:
            await told(database, events[0])
            await told(database, *events, *events)
    assert [row["reserved"] for row in await rows(database, "SELECT reserved FROM stock")] == [0, 0, 0]
    await assert_stock_adds_up(database)


async def test_a_partial_cancellation_frees_its_part_in_the_table(database: Database):
    await stocked(database, {"RED-LAMP": 1, "BLUE-CUP": 2})
    await told(database, placed())
    await told(database, lines_cancelled(("BLUE-CUP", 1)))
    assert (await level(database, "BLUE-CUP"), await level(database)) == ((2, 1), (1, 1))
    await told(database, *ends())
    assert (await level(database, "BLUE-CUP"), await level(database)) == ((2, 0), (1, 0))
    await assert_stock_adds_up(database)


async def test_an_adjustment_below_what_is_held_is_refused_whole(database: Database):
    await stocked(database, {"RED-LAMP": 3, "BLUE-CUP": 3})
    await told(database, placed(("RED-LAMP", 2)))
    lines = [{"sku": sku, "warehouse": "BER", "quantity": -2, "reason": "lost"} for sku in ("BLUE-CUP", "RED-LAMP")]
    async with counter(database) as client:
        answer = await client.post("/stock/adjustments", json={"lines": lines}, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (409, "lines.1.quantity")
    assert (await level(database, "BLUE-CUP"), await level(database)) == ((3, 0), (3, 2))
    await assert_stock_adds_up(database)


async def test_a_receipt_sent_again_finds_its_first_answer(database: Database):
    await stocked(database, {"RED-LAMP": 0})
    body = {"lines": [{"sku": "RED-LAMP", "warehouse": "BER", "quantity": 5}]}
    async with counter(database) as client:
        answers = await asyncio.gather(
            *(client.post("/stock/receipts", json=body, headers={"Idempotency-Key": "monday"}) for _ in range(20))
        )
        body["lines"][0]["quantity"] = 6
        other = await client.post("/stock/receipts", json=body, headers={"Idempotency-Key": "monday"})
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.text for answer in answers} == {'{"lines":1,"available":{"RED-LAMP":5}}'}
    assert (other.status_code, other.json()["errors"][0]["field"]) == (409, "Idempotency-Key")
    assert await level(database) == (5, 0)
    await assert_stock_adds_up(database)


async def test_what_is_unknown_is_named_and_nothing_is_booked(database: Database):
    await stocked(database, {"RED-LAMP": 1})
    async with counter(database) as client:
        for sku, warehouse, field in (("GREEN-HAT", "BER", "lines.1.sku"), ("RED-LAMP", "MARS", "lines.1.warehouse")):
            good, bad = ("RED-LAMP", "BER"), (sku, warehouse)
            lines = [{"sku": s, "warehouse": w, "quantity": 1} for s, w in (good, bad)]
            answer = await client.post("/stock/receipts", json={"lines": lines}, headers={"Idempotency-Key": field})
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert await level(database) == (1, 0)


@pytest.mark.parametrize(("there", "expected"), [("0", "5"), ("4", "7"), (None, "10")])
async def test_what_is_there_keeps_its_cost_even_if_it_was_free(database: Database, there: str | None, expected: str):
    await stocked(database, {"RED-LAMP": 0})
    first = Movement("RED-LAMP", "BER", 10, Decimal(there), "EUR") if there else Movement("RED-LAMP", "BER", 10)
    await moved(database, first)
    await moved(database, Movement("RED-LAMP", "BER", 10, Decimal(10), "EUR"))
    assert await value(database, "SELECT unit_cost FROM items") == Decimal(expected)


async def test_the_same_new_product_registered_twice_at_once_is_two_versions_in_order(database: Database):
    async def register(name: str) -> None:
        items = [ItemRegistered(occurred_at=NOW, sku=sku, name=name) for sku in ("RED-LAMP", "BLUE-CUP")]
        async with database.transaction() as tx:
            await commands.register_items(tx, items if name < "5" else items[::-1], command_cause())

    await asyncio.gather(*(register(str(n)) for n in range(10)))
    await assert_stock_adds_up(database)
    assert {row["version"] for row in await rows(database, "SELECT version FROM items")} == {10}


async def test_a_product_registered_again_unchanged_says_nothing(database: Database):
    await stocked(database, {"RED-LAMP": 0})
    await stocked(database, {"RED-LAMP": 0})
    assert await said(database) == [("ItemRegistered", "RED-LAMP", 1)]


async def test_pages_of_items_and_movements_follow_each_other(database: Database):
    await stocked(database, {f"CUP-{n}": n + 1 for n in range(5)})
    await moved(database, *(Movement("CUP-0", "BER", 1) for _ in range(4)))
    async with counter(database) as client:
        for path, key, total in (("/items", "sku", 5), ("/stock", "sku", 5), ("/stock/CUP-0/movements", "id", 5)):
            seen, cursor = list[object](), None
            while True:
                page = (await client.get(path, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
                seen += [one[key] for one in page["items"]]
                if (cursor := page["next"]) is None:
                    break
            assert (len(seen), seen) == (total, sorted(seen, key=str))


async def test_the_last_movements_come_first_when_asked_so(database: Database):
    await stocked(database, {"RED-LAMP": 1})
    await moved(database, *(Movement("RED-LAMP", "BER", units) for units in (2, 3, 4)))
    path, seen, cursor = "/stock/RED-LAMP/movements", list[int](), None
    async with counter(database) as client:
        while True:
            asked = {"newest_first": True, "limit": 3} | ({"cursor": cursor} if cursor else {})
            page = (await client.get(path, params=asked)).json()
            seen += [one["quantity"] for one in page["items"]]
            if (cursor := page["next"]) is None:
                break
    assert seen == [4, 3, 2, 1]


@pytest.mark.parametrize("path", ["/items", "/stock", "/stock/RED-LAMP/movements"])
@pytest.mark.parametrize(
    "cursor", ["nonsense", "WyJhYmMiXQ", "W251bGxd", "WzFlOTlE", "W1tdXQ", "Wzk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5XQ"]
)
async def test_a_made_up_cursor_is_no_fault_of_ours(database: Database, path: str, cursor: str):
    async with counter(database) as client:
        answer = await client.get(path, params={"cursor": cursor})
    assert answer.status_code in (200, 422), answer.text


async def test_a_text_that_cannot_be_stored_is_refused(database: Database):
    await stocked(database, {"RED-LAMP": 0})
    item = {"sku": "GREEN\x00HAT", "name": "Hat"}
    async with counter(database) as client:
        answers = [
            await client.get("/items/RED%00LAMP"),
            await client.get("/availability", params={"sku": "RED\x00LAMP"}),
            await client.post("/items", json={"items": [item]}),
            await client.put("/warehouses/BER", json={"name": "B\x00", "country": "DE"}),
        ]
    assert [answer.status_code for answer in answers] == [422] * 4
    assert answers[0].headers["content-type"] == "application/problem+json"


async def test_every_route_asks_for_its_scope(database: Database):
    async with counter(database, scope="items:read") as client:
        assert (await client.get("/items")).status_code == 200
        assert (await client.get("/stock")).status_code == 403
        assert (await client.get("/stock", headers={"Authorization": ""})).status_code == 401


async def test_the_holds_of_an_order_seen_before_survive_it_coming_again(database: Database):
    await stocked(database, {"RED-LAMP": 5})
    await told(database, placed(LAMP), placed(LAMP))
    await told(database, placed(LAMP))
    assert await level(database) == (5, 1)
    assert await value(database, "SELECT version FROM holds WHERE order_id = $1", order_id()) == 1
