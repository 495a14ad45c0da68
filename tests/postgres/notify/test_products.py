"""Which product a thank-you names: what goes with the order, can be had, and is not in it."""

from __future__ import annotations

from decimal import Decimal
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

from services.notify import products
from shared.events.inventory import ItemCostChanged, ItemRegistered, StockLevelChanged
from shared.topics import ITEMS, STOCK
from tests.postgres.notify.conftest import NOW, cancelled, message, order, placed, settled

if TYPE_CHECKING:
    from tests.postgres.notify.conftest import World


def item(sku: str, category: str = "home", *, sequence: int = 1, **changes: Any) -> Any:
    event = ItemRegistered(occurred_at=NOW, sku=sku, name=sku.lower().replace("-", " "), category=category)
    return message(ITEMS, event.model_copy(update=changes), sequence)


def level(sku: str, available: int, sequence: int = 1) -> Any:
    return message(STOCK, StockLevelChanged(occurred_at=NOW, sku=sku, levels=(), available=available), sequence)


def text_of(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    return body.get_content().replace("\r\n", "\n")


async def offered(world: World, *skus: str) -> None:
    await world.take(*(one for sku in skus for one in (item(sku), level(sku, 5))))


async def related(world: World, number: int = 1) -> str | None:
    async with world.database.reading() as db:
        own = await products.skus(db, [order(number)])
        return await products.related(db, order(number), own[order(number)])


async def bought(world: World, *baskets: tuple[str, ...]) -> None:
    """Orders 11, 12, …"""
    await world.hear(*(placed(number, *skus) for number, skus in enumerate(baskets, 11)))


async def test_what_is_most_often_bought_together(world: World) -> None:
    await offered(world, "RED-LAMP", "BLUE-CUP", "BULB", "RUG")
    await bought(
        world, ("RED-LAMP", "BULB"), ("RED-LAMP", "BULB"), ("RED-LAMP", "BLUE-CUP"), ("RUG",), ("RUG",), ("RUG",)
    )
    await world.hear(placed(1, "RED-LAMP"))
    assert await related(world) == "bulb"
    await world.hear(placed(2, "RED-LAMP", "BULB"))
    assert await related(world, 2) == "blue cup"


async def test_what_is_out_of_stock_or_no_longer_sold_is_not_named(world: World) -> None:
    await offered(world, "RED-LAMP", "BULB", "BLUE-CUP", "RUG")
    await bought(world, *[("RED-LAMP", "BULB")] * 3, *[("RED-LAMP", "BLUE-CUP")] * 2, ("RED-LAMP", "RUG"))
    await world.hear(placed(1, "RED-LAMP"))
    await world.take(level("BULB", 0, sequence=2), item("BLUE-CUP", sequence=2, active=False))
    assert await related(world) == "rug"


async def test_a_refused_or_cancelled_order_is_no_purchase(world: World) -> None:
    await offered(world, "RED-LAMP", "BULB", "BLUE-CUP")
    await bought(world, ("RED-LAMP", "BULB"), ("RED-LAMP", "BULB"), ("RED-LAMP", "BLUE-CUP"))
    await world.hear(cancelled(11), cancelled(12), placed(1, "RED-LAMP"))
    assert await related(world) == "blue cup"


async def test_else_the_most_bought_of_the_same_category_else_none(world: World) -> None:
    await offered(world, "RED-LAMP", "BLUE-CUP", "RUG")
    await world.take(item("SHOE", "clothes"), level("SHOE", 5))
    await bought(world, ("SHOE",), ("SHOE",), ("RUG",), ("RUG",), ("BLUE-CUP",))
    await world.hear(placed(1, "RED-LAMP"), placed(2, "SHOE"))
    assert await related(world) == "rug"
    assert await related(world, 2) is None


async def test_late_and_repeated_news_of_products_change_nothing(world: World) -> None:
    await world.take(item("BULB", sequence=3, name="Bulb 40 W"), level("BULB", 7, 5))
    cost = ItemCostChanged(occurred_at=NOW, sku="BULB", unit_cost=Decimal(1), currency="EUR")
    await world.take(item("BULB", sequence=2), level("BULB", 9, 4), message(ITEMS, cost, 4))
    await world.take(level("BULB", 6, 7), level("BULB", 8, 6))
    assert await world.rows("SELECT name, active, available FROM products") == [("Bulb 40 W", True, 6)]


async def test_a_thank_you_names_the_product_and_other_mails_the_order_s(world: World) -> None:
    await offered(world, "RED-LAMP", "BULB")
    await bought(world, ("RED-LAMP", "BULB"))
    await world.confirmed(1, "RED-LAMP", "NEW-ONE")
    await world.hear(settled(1))
    await world.send()
    text = {mail["Subject"]: text_of(mail) for mail in world.post.mails}
    assert "like: bulb." in text["Thank you for your order 1001"]
    assert "  - red lamp\n  - NEW-ONE\n" in text["We have your order 1001"]
