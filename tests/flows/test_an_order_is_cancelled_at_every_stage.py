"""A cancellation meets an order wherever it is: what has not left is cancelled, what has left is not."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.flows.market import Market, journey, until


async def settled_cancellation(market: Market, order_id: str) -> None:
    """A cancelled order holds nothing, owes nothing, and the carrier has no parcel of it."""
    await market.gives_everything_back(order_id)
    books = await market.books(order_id)
    assert "receivable" not in books
    assert books.get("revenue", 0) + books.get("refunds", 0) == 0
    assert await market.at_carrier(order_id) == []


async def test_as_soon_as_it_is_placed(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 1), token="tok_3ds"))
    assert (await market.cancel(order_id)).status_code == 200
    await market.ended(order_id, "cancelled")
    await settled_cancellation(market, order_id)


async def test_while_the_buyer_is_at_the_bank(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 1), token="tok_3ds"))
    await market.paying(order_id, "action_required")
    assert (await market.cancel(order_id)).status_code == 200
    await settled_cancellation(market, order_id)


async def test_when_the_carrier_has_it_on_the_list_it_is_asked_to_give_it_back(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 1)))
    await market.booked(order_id)
    answers = [await market.cancel(order_id, key="twice") for _ in range(2)]
    assert answers[0].status_code == 202
    assert answers[0].json()["cancellation_pending"]
    order = await market.ended(order_id, "cancelled")
    assert [journey(order).count(name) for name in ("CancellationRequested", "ParcelRecalled", "OrderCancelled")] == [
        1, 1, 1,
    ]  # fmt: skip
    await settled_cancellation(market, order_id)


async def test_two_booked_parcels_are_both_given_back(market: Market):
    lamp, clock = market.name("red-lamp"), market.name("old-clock")
    await market.stock({lamp: ("24.90", 5)})
    await market.stock({clock: ("40.00", 5)}, warehouse="lyon")
    order_id = await market.place(market.order((lamp, 1), (clock, 1)))
    await market.booked(order_id, parcels=2)
    assert (await market.cancel(order_id)).status_code == 202
    order = await market.ended(order_id, "cancelled")
    assert (journey(order).count("CancellationRequested"), journey(order).count("ParcelRecalled")) == (1, 2)
    await settled_cancellation(market, order_id)


async def test_units_of_a_booked_parcel_are_taken_out_and_the_rest_goes(market: Market):
    lamp, cup = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 1), (cup, 3)))
    await market.booked(order_id)
    assert (await market.cancel(order_id, lines=[{"line": 2, "quantity": 2}])).status_code == 202

    async def booked_again() -> bool:
        (parcel,) = (await market.look(order_id))["parcels"]
        return parcel["state"] == "booked" and parcel["items"] == {lamp: 1, cup: 1}

    await until("the rest is booked again", booked_again)
    assert await market.available(cup) == 99
    await market.move(order_id, "collected")
    await market.move(order_id, "delivered")
    order = await market.ended(order_id, "closed")
    assert order["cancelled_amount"] == "13.00"
    assert await market.kept_money(order_id) == Decimal("31.40")


@pytest.mark.parametrize("status", ["collected", "delivered"])
async def test_what_has_left_is_not_cancelled(market: Market, status: str):
    lamp, _ = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 1)))
    await market.booked(order_id)
    await market.move(order_id, status)
    state = "shipped" if status == "collected" else "delivered"
    await market.parcels(order_id, state)
    answer = await market.cancel(order_id)
    assert answer.status_code == 409, answer.text
    units = await market.cancel(order_id, lines=[{"line": 1, "quantity": 1}])
    assert units.status_code == 409, units.text
    assert await market.kept_money(order_id) == Decimal("24.90")


async def test_a_cancellation_that_the_courier_overtakes_is_refused_and_the_order_goes_on(market: Market):
    """The carrier has collected the parcel, and its word of that is still on the way."""
    lamp, _ = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 1)))
    await market.booked(order_id)
    async with market.carrier_that(webhook_loss_rate=1.0):
        await market.move(order_id, "collected")
    assert (await market.cancel(order_id)).status_code == 202

    async def refused() -> bool:
        return "CancellationRefused" in journey(await market.look(order_id))

    await until("the cancellation is refused", refused)
    await market.move(order_id, "delivered")
    order = await market.ended(order_id, "closed")
    assert not order["cancellation_pending"]
    assert await market.kept_money(order_id) == Decimal("24.90")


async def test_of_two_parcels_the_one_that_is_still_here_can_be_cancelled(market: Market):
    lamp, clock = market.name("red-lamp"), market.name("old-clock")
    await market.stock({lamp: ("24.90", 5)})
    await market.stock({clock: ("40.00", 5)}, warehouse="lyon")
    order_id = await market.place(market.order((lamp, 1), (clock, 1)))
    await market.booked(order_id, parcels=2)
    await market.move(order_id, "collected", 1)
    await market.parcels(order_id, "shipped", "booked")
    whole = await market.cancel(order_id)
    assert whole.status_code == 409
    assert "parcel 1" in whole.json()["detail"]
    assert (await market.cancel(order_id, lines=[{"line": 2, "quantity": 1}])).status_code == 202
    await market.parcels(order_id, "shipped")
    assert await market.available(clock) == 5
    await market.move(order_id, "delivered", 1)
    await market.ended(order_id, "closed")
    assert await market.kept_money(order_id) == Decimal("24.90")


async def test_a_closed_order_is_not_cancelled(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 1)))
    await market.booked(order_id)
    await market.move(order_id, "delivered")
    await market.ended(order_id, "closed")
    assert (await market.cancel(order_id)).status_code == 409
