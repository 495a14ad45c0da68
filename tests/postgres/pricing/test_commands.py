"""Prices, coupons and rules are commanded; what changed is said, per SKU and without a gap."""

from decimal import Decimal

import pytest

from services.pricing import commands
from services.pricing.discounts import Coupon
from services.pricing.handlers import price_orders
from shared.commands import command_cause
from shared.postgres import Database
from shared.problems import Problem
from tests.postgres.pricing.world import LONG_AGO, a_world, handle, outbox, placed


async def change(database: Database, price_list: str = "retail", **prices: str) -> commands.Changed:
    wanted = {sku.replace("_", "-"): Decimal(price) for sku, price in prices.items()}
    async with database.transaction() as tx:
        return await commands.change_prices(tx, price_list, wanted, None, command_cause())


async def test_what_is_so_already_is_not_said_again(database: Database) -> None:
    await a_world(database)
    assert (await change(database, RED_LAMP="20", BLUE_CUP="5")).changed == 1
    assert (await change(database, BLUE_CUP="5.00")).changed == 0
    assert (await change(database, BLUE_CUP="6")).changed == 1
    said = [(sku, sequence, body["unit_price"]) for _, sku, sequence, body in await outbox(database, "price")]
    assert said == [("BLUE-CUP", 1, "4.50"), ("RED-LAMP", 1, "20.00"), ("BLUE-CUP", 2, "5"), ("BLUE-CUP", 3, "6")]


async def test_skus_that_nobody_has_named_are_told(database: Database) -> None:
    await a_world(database)
    assert (await change(database, PINK_TOAD="1")).unknown_skus == ["PINK-TOAD"]


async def test_prices_need_a_list(database: Database) -> None:
    with pytest.raises(Problem) as problem:
        await change(database, "nowhere", RED_LAMP="1")
    assert (problem.value.status, problem.value.errors[0]["field"]) == (422, "price_list")


async def test_two_lists_of_one_currency_cannot_have_the_same_say(database: Database) -> None:
    await a_world(database)
    async with database.transaction() as tx:
        await commands.put_list(tx, "pounds", "Pounds", "GBP", 100)
        await commands.put_list(tx, "retail", "Retail prices", "EUR", 100)
        with pytest.raises(Problem, match="which one is to win"):
            await commands.put_list(tx, "sale", "Sale", "EUR", 100)
        with pytest.raises(Problem, match="has prices in EUR"):
            await commands.put_list(tx, "retail", "Retail", "USD", 100)


async def test_a_tier_and_a_coupon_of_one_priority_are_a_conflict(database: Database) -> None:
    async with database.transaction() as tx:
        with pytest.raises(Problem, match="tier gold has priority 100"):
            await commands.put_coupon(tx, Coupon("TEN", percent=Decimal(10), priority=100))
        await commands.put_coupon(tx, Coupon("TEN", percent=Decimal(10)))
        with pytest.raises(Problem, match="coupon TEN has priority 200"):
            await commands.put_tier_rule(tx, "gold", Decimal(5), 200)


async def test_a_limit_is_never_set_below_the_uses_held(database: Database) -> None:
    await a_world(database, Coupon("TEN", percent=Decimal(10)))
    await handle(database, price_orders, placed(1, coupon="TEN"), placed(2, coupon="TEN"))
    async with database.transaction() as tx:
        with pytest.raises(Problem, match="2 uses already"):
            await commands.put_coupon(tx, Coupon("TEN", percent=Decimal(10), limit_total=1))
        await commands.put_coupon(tx, Coupon("TEN", percent=Decimal(20), limit_total=2))


async def test_a_price_for_the_past_is_said_with_its_date(database: Database) -> None:
    await a_world(database, since=LONG_AGO)
    said = await outbox(database, "price")
    assert {body["valid_from"] for _, _, _, body in said} == {"2020-01-01T00:00:00Z"}
