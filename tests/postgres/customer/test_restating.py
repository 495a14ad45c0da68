"""An order restated gives back the points that it holds beyond what it says, and never takes any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from services.customer import holdings
from shared.events.customer import PointsReleased
from shared.events.order import OrderRestated
from shared.messages import Message
from shared.topics import IDENTIFICATIONS, ORDERS
from tests.postgres.customer.conftest import NOON, message, order_id

if TYPE_CHECKING:
    from tests.postgres.customer.conftest import World

PURSE = "SELECT points_balance, points_held FROM customers WHERE customer_id = $1"
STATE = "SELECT state, points_held FROM identifications WHERE order_id = $1"


def restated(points: int | None, state: str = "cancelled", sequence: int = 9) -> Message[Any]:
    event = OrderRestated(
        occurred_at=NOON, order_id=order_id("lamps"), state=state, points=points, keeps_coupon=state == "confirmed"
    )
    return message(ORDERS, event, sequence)


async def test_points_of_an_order_whose_end_was_missed_come_back_once(world: World) -> None:
    anna = await world.customer(balance=500)
    await world.take(world.sealed("lamps", customer_id=anna, points=300))
    async with world.database.reading() as db:
        assert [(one.order_id, one.points) for one in await holdings.load(db, [order_id("lamps")])] == [
            (order_id("lamps"), 300)
        ]
    for _ in range(2):
        await world.take(restated(0))
    assert await world.rows(PURSE, anna) == [(500, 0)]
    assert await world.rows(STATE, order_id("lamps")) == [("ended", 0)]
    released = [event for event, _ in await world.said(IDENTIFICATIONS) if isinstance(event, PointsReleased)]
    assert [event.points for event in released] == [300]
    async with world.database.reading() as db:
        assert await holdings.load(db, [order_id("lamps")]) == []


@pytest.mark.parametrize("points", [300, 400, None])
async def test_an_order_that_holds_no_more_than_it_says_keeps_it(world: World, points: int | None) -> None:
    anna = await world.customer(balance=500)
    await world.take(world.sealed("lamps", customer_id=anna, points=300))
    await world.take(restated(points, "confirmed"))
    assert await world.rows(PURSE, anna) == [(200, 300)]
    assert await world.rows(STATE, order_id("lamps")) == [("identified", 300)]


async def test_a_sold_order_gives_back_the_surplus_alone(world: World) -> None:
    anna = await world.customer(balance=500)
    await world.take(world.sealed("lamps", customer_id=anna, points=300))
    await world.take(restated(100, "confirmed"))
    assert await world.rows(PURSE, anna) == [(400, 100)]
    assert await world.rows(STATE, order_id("lamps")) == [("identified", 100)]


async def test_settled_points_are_spent(world: World) -> None:
    anna = await world.customer(balance=500)
    await world.take(world.sealed("lamps", customer_id=anna, points=300), world.settled("lamps", 10, customer=anna))
    before = await world.rows(PURSE, anna)
    await world.take(restated(0, "closed"))
    assert await world.rows(PURSE, anna) == before
