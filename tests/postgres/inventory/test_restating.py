"""An order restated: surplus is released, what is missing is held again if it is there, and all of it is said."""

from __future__ import annotations

from services.inventory import holdings
from shared.app import build_app
from shared.events.order import HeldUnits, OrderRestated
from shared.health import Health
from shared.holdings import route
from shared.postgres import Database
from tests.support.http import Issuer, client_of
from tests.support.kernel import rows, said
from tests.support.orders import NOW, ends, order_id, placed
from tests.support.warehouse import assert_stock_adds_up, level, stocked, told


def restated(*goods: tuple[str, str, int], state: str = "confirmed") -> OrderRestated:
    units = tuple(HeldUnits(sku=sku, warehouse=warehouse, quantity=n) for sku, warehouse, n in goods)
    return OrderRestated(occurred_at=NOW, order_id=order_id(), state=state, goods=units, points=0, keeps_coupon=True)


async def plant(database: Database, lamps: int) -> None:
    """Behind the service's back the order holds so many lamps."""
    async with database.transaction() as tx:
        await tx.db.execute("DELETE FROM hold_lines")
        if lamps:
            await tx.db.execute("INSERT INTO hold_lines VALUES ($1, 'RED-LAMP', 'BER', $2)", order_id(), lamps)
        await tx.db.execute("UPDATE stock SET reserved = $1", lamps)


async def names(database: Database) -> list[str]:
    return [name for name, _, _ in await said(database) if name.startswith("Stock")]


async def test_a_cancelled_order_s_orphaned_hold_is_released_once(database: Database):
    await stocked(database, {"RED-LAMP": 10})
    await told(database, placed(("RED-LAMP", 1)), ends()[1])
    await plant(database, 3)
    before = len(await names(database))
    for _ in range(2):
        await told(database, restated(state="cancelled"))
    assert await level(database) == (10, 0)
    assert (await names(database))[before:] == ["StockReleased", "StockLevelChanged"]
    assert [row["state"] for row in await rows(database, "SELECT state FROM holds")] == ["released"]
    await assert_stock_adds_up(database)


async def test_a_missing_hold_is_made_again_once(database: Database):
    await stocked(database, {"RED-LAMP": 10})
    await told(database, placed(("RED-LAMP", 4)))
    await plant(database, 1)
    before = len(await names(database))
    for _ in range(2):
        await told(database, restated(("RED-LAMP", "BER", 4)))
    assert await level(database) == (10, 4)
    assert (await names(database))[before:] == ["StockHeld", "StockLevelChanged"]
    await assert_stock_adds_up(database)


async def test_of_a_missing_hold_only_what_is_there_is_taken(database: Database):
    await stocked(database, {"RED-LAMP": 4})
    await told(database, placed(("RED-LAMP", 4)))
    await plant(database, 0)
    await told(database, placed(("RED-LAMP", 3), number=2))
    await told(database, restated(("RED-LAMP", "BER", 4), ("RED-LAMP", "GRZ", 1), ("BLUE-CUP", "BER", 1)))
    assert await level(database) == (4, 4)
    await assert_stock_adds_up(database)


async def test_a_healthy_order_and_one_without_a_word_of_goods_stay_as_they_are(database: Database):
    await stocked(database, {"RED-LAMP": 10})
    await told(database, placed(("RED-LAMP", 4)))
    before = await said(database)
    silent = restated().model_copy(update={"goods": None})
    await told(database, restated(("RED-LAMP", "BER", 4)), silent)
    assert await said(database) == before


async def test_what_is_held_is_told_to_who_may_ask(database: Database):
    await stocked(database, {"RED-LAMP": 10})
    await told(database, placed(("RED-LAMP", 4)), placed(("RED-LAMP", 1), number=2), ends(2)[0])
    async with database.transaction() as tx:
        await tx.db.execute("INSERT INTO consumer_offsets VALUES ('hold_stock', 'isthmus.order.order.v1', 3, 0, 17)")
    issuer = Issuer()
    app = build_app("inventory", [route(database, "hold_stock", holdings.load)], Health())
    app.state.authenticator = issuer.authenticator()
    asked = {"order_ids": [str(order_id(number)) for number in (1, 2, 3)]}
    async with client_of(app, issuer.token("holdings:read")) as client:
        answer = (await client.post("/holdings", json=asked)).json()
        assert answer["read"] == {"3": 17}
        (one,) = answer["holdings"]
        assert one["order_id"] == str(order_id(1))
        assert one["goods"] == [{"sku": "RED-LAMP", "warehouse": "BER", "quantity": 4}]
        many = {"order_ids": [str(order_id())] * 501}
        assert (await client.post("/holdings", json=many)).status_code == 422
    async with client_of(app, issuer.token("stock:read")) as client:
        assert (await client.post("/holdings", json=asked)).status_code == 403
