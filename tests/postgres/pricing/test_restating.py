"""An order restated: a coupon and a quote that it no longer has a right to are free again."""

from __future__ import annotations

from decimal import Decimal

from services.pricing import holdings
from services.pricing.discounts import Coupon
from services.pricing.handlers import price_orders
from shared.events.order import OrderRestated
from shared.postgres import Database
from tests.postgres.pricing.world import LAMP, NOW, a_world, handle, kinds, order_id, placed

TEN = Coupon("TEN", percent=Decimal(10), limit_total=10)


def restated(state: str) -> OrderRestated:
    return OrderRestated(occurred_at=NOW, order_id=order_id(1), state=state, keeps_coupon=state == "confirmed")


async def coupons(database: Database) -> list[str | None]:
    async with database.reading() as db:
        return [one.coupon for one in await holdings.load(db, [order_id(1), order_id(2)])]


async def quote(database: Database, state: str) -> None:
    """A quote of the first order, in this state."""
    async with database.transaction() as tx:
        await tx.db.execute(
            """INSERT INTO quotes (quote_id, asked, priced, valid_until, state, order_id)
               VALUES (gen_random_uuid(), $1, $2, now(), $3, $4)""",
            {"currency": "EUR", "lines": [], "country": "DE", "at": NOW.isoformat()},
            {"currency": "EUR", "tier": "base", "lines": [], "discount": "0", "points_value": "0", "tax": "0",
             "total": "0", "tier_percent": "0", "coupon": None,},
            state, order_id(1),
        )  # fmt: skip


async def quotes(database: Database) -> list[tuple[str, bool]]:
    async with database.reading() as db:
        return [(row["state"], row["ours"]) for row in await db.fetch(
            "SELECT state, order_id IS NOT NULL AS ours FROM quotes")]  # fmt: skip


async def test_the_coupon_of_an_order_whose_end_was_missed_is_free_again_once(database: Database):
    await a_world(database, TEN)
    await handle(database, price_orders, placed(1, LAMP, coupon="TEN"), placed(2, LAMP))
    assert await coupons(database) == ["TEN"]
    for _ in range(2):
        await handle(database, price_orders, restated("cancelled"), first_sequence=5)
    assert await kinds(database) == ["OrderPriced", "OrderPriced", "CouponReleased"]
    assert await coupons(database) == []
    async with database.reading() as db:
        assert await db.fetchval("SELECT used FROM coupons") == 0


async def test_a_sold_order_keeps_its_coupon(database: Database):
    await a_world(database, TEN)
    await handle(database, price_orders, placed(1, LAMP, coupon="TEN"))
    await handle(database, price_orders, restated("confirmed"), first_sequence=5)
    assert await coupons(database) == ["TEN"]


async def test_a_quote_is_open_again_or_spent_as_the_order_says(database: Database):
    for state, then in (("expired", ("open", False)), ("confirmed", ("spent", True))):
        async with database.transaction() as tx:
            await tx.db.execute("DELETE FROM quotes")
        await quote(database, "held")
        async with database.reading() as db:
            await db.execute("INSERT INTO order_prices VALUES ($1, 'priced', 1) ON CONFLICT DO NOTHING", order_id(1))
            assert [one.quote_id is not None for one in await holdings.load(db, [order_id(1)])] == [True]
        await handle(database, price_orders, restated(state), first_sequence=5)
        assert await quotes(database) == [then]
