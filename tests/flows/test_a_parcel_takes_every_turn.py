"""Parcels that are delivered, late, lost, refused or unheard of: goods, money and books follow each of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal

import pytest

from tests.flows.market import Market, journey, until

DELIVERED = ["ParcelBooked", "ParcelShipped", "ParcelDelivered", "OrderSettled", "OrderClosed"]
NOTICES = ("parcel.collected", "parcel.in_transit", "parcel.delayed", "parcel.delivered")


def shipping(order: object) -> list[str]:
    """What happened after the order was confirmed."""
    return [name for name in journey(order) if name.startswith("Parcel") or name in ("OrderSettled", "OrderClosed")]


async def test_a_delivered_parcel_closes_its_order_in_every_book(market: Market):
    lamp, cup = await market.lamps_and_cups(lamps=10)
    order_id = await market.place(market.order((lamp, 2), (cup, 1)))
    await market.booked(order_id)
    await market.move(order_id, "collected")
    order = await market.parcels(order_id, "shipped")
    assert order["state"] == "confirmed"

    async def has_left() -> bool:
        (level,) = (await market.ask("inventory", "GET", f"/stock/{lamp}")).json()["levels"]
        return (level["on_hand"], level["reserved"]) == (8, 0)

    await until("the lamps have left the warehouse", has_left)
    await market.move(order_id, "delivered")
    order = await market.ended(order_id, "closed")
    assert shipping(order) == DELIVERED
    assert order["settled"]
    books = await market.books(order_id)
    assert (books["cash"], books["cost_of_goods"], books["inventory"]) == (
        Decimal("56.30") - books["provider_fees"], Decimal("9.00"), Decimal("-9.00"),
    )  # fmt: skip
    assert books["revenue"] + books["tax"] == Decimal("-56.30")
    assert books["points_granted"] == -books["points_liability"] == Decimal("0.56")
    assert sum(books.values()) == 0
    assert "receivable" not in books


async def test_notices_that_come_twice_and_in_any_order_move_every_parcel_once(market: Market):
    lamp, _ = await market.lamps_and_cups()
    behaviour = {"webhook_duplicate_rate": 1.0, "webhook_reorder_rate": 0.5, "collect_seconds": 0.2,
                 "transit_seconds": 0.2, "promise_seconds": 60, "moves_by_itself": True}  # fmt: skip
    async with market.carrier_that(**behaviour):
        ids = await asyncio.gather(*(market.place(market.order((lamp, 1))) for _ in range(12)))
        orders = await asyncio.gather(*(market.ended(order_id, "closed", 40) for order_id in ids))
        await market.all_notices_delivered("carrier")
    for order in orders:
        assert shipping(order) == DELIVERED
        assert shipping(await market.look(order["order_id"])) == DELIVERED
    left = (await market.ask("inventory", "GET", f"/stock/{lamp}")).json()["levels"]
    assert [(level["on_hand"], level["reserved"]) for level in left] == [(88, 0)]


async def test_every_notice_again_long_after_the_delivery_takes_nothing_back(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 1)))
    await market.booked(order_id)
    for status in ("collected", "in_transit", "delayed", "delivered"):
        await market.move(order_id, status)
    before = journey(await market.ended(order_id, "closed"))
    (parcel,) = await market.at_carrier(order_id)
    for type_ in [*NOTICES, *NOTICES]:
        answer = await market.carrier("POST", f"/sandbox/parcels/{parcel['id']}/notices", json={"type": type_})
        assert answer.status_code == 202, answer.text
    await market.all_notices_delivered("carrier")
    order = await market.look(order_id)
    assert Counter(shipping(order)) == Counter(one for one in before if one in shipping(order))
    assert [one["state"] for one in order["parcels"]] == ["delivered"]


async def test_a_parcel_of_which_nothing_is_heard_is_looked_up(market: Market):
    lamp, _ = await market.lamps_and_cups()
    silence = {"webhook_loss_rate": 1.0, "collect_seconds": 0.1, "transit_seconds": 0.1, "promise_seconds": 1.0,
               "moves_by_itself": True}  # fmt: skip
    async with market.carrier_that(**silence):
        order_id = await market.place(market.order((lamp, 1)))
        assert shipping(await market.ended(order_id, "closed")) == DELIVERED


async def test_a_late_parcel_is_told_once_and_still_delivered(market: Market):
    lamp, _ = await market.lamps_and_cups()
    async with market.carrier_that(promise_seconds=0.5):
        order_id = await market.place(market.order((lamp, 1)))

        async def late() -> bool:
            return "ParcelLate" in journey(await market.look(order_id))

        await until("the parcel is late", late)
    await market.move(order_id, "collected")
    await market.move(order_id, "delivered")
    order = await market.ended(order_id, "closed")
    assert Counter(shipping(order)) == Counter([*DELIVERED, "ParcelLate"])

    async def told() -> bool:
        care = (await market.ask("notify", "GET", "/care", params={"order_id": order_id})).json()["items"]
        return {one["trigger"] for one in care} >= {"parcel_late", "thank_you"}

    await until("the customer is told that it is late, and thanked when it came", told)


async def test_a_lost_parcel_gives_back_what_was_paid_for_it(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 1)))
    await market.booked(order_id)
    await market.move(order_id, "collected")
    await market.parcels(order_id, "shipped")
    await market.move(order_id, "lost")
    order = await market.ended(order_id, "cancelled")
    assert order["reason"] == "lost"
    await market.gives_everything_back(order_id)
    books = await market.books(order_id)
    assert books["revenue"] == -books["refunds"]
    assert "receivable" not in books
    assert books["cost_of_goods"] == Decimal("3.00")  # the goods are gone all the same


async def test_one_parcel_of_two_is_lost_and_the_other_closes_the_order(market: Market):
    lamp, clock = market.name("red-lamp"), market.name("old-clock")
    await market.stock({lamp: ("24.90", 5)})
    await market.stock({clock: ("40.00", 5)}, warehouse="lyon")
    order_id = await market.place(market.order((lamp, 1), (clock, 1)))
    await market.booked(order_id, parcels=2)
    await market.move(order_id, "collected", 1)
    await market.move(order_id, "lost", 1)
    await market.move(order_id, "collected", 2)
    await market.move(order_id, "delivered", 2)
    order = await market.ended(order_id, "closed")
    assert [one["state"] for one in order["parcels"]] == ["lost", "delivered"]
    assert order["cancelled_amount"] == "24.90"
    assert await market.kept_money(order_id) == Decimal("40.00")
    books = await market.books(order_id)
    assert books["revenue"] + books["refunds"] + books["tax"] == Decimal("-40.00")


async def test_where_the_carrier_does_not_go_the_buyer_gets_money_and_the_shelf_its_goods_back(market: Market):
    lamp, _ = await market.lamps_and_cups(lamps=3)
    recipient = {"name": "Bob", "street": "0 No Road", "city": "Nowhere", "country": "GB"}
    order_id = await market.place(market.order((lamp, 3), recipient=recipient))
    order = await market.ended(order_id, "cancelled")
    assert order["reason"] == "undeliverable"
    await market.gives_everything_back(order_id)
    assert await market.available(lamp) == 3
    assert await market.at_carrier(order_id) == []


@pytest.mark.parametrize("trouble", [{"drop_rate": 1.0}, {"timeout_rate": 1.0}])
async def test_a_booking_without_a_clear_answer_is_made_once(market: Market, trouble: dict[str, float]):
    lamp, _ = await market.lamps_and_cups()
    async with market.carrier_that(**trouble):
        order_id = await market.place(market.order((lamp, 1)))
        order = await market.booked(order_id)
    assert len(await market.at_carrier(order_id)) == 1
    assert journey(order).count("ParcelBooked") == 1


async def test_nothing_of_the_recipient_is_kept_outside_the_customer_service(market: Market):
    lamp, _ = await market.lamps_and_cups()
    name = market.name("Zacharias")
    recipient = {"name": name, "street": "7 Elm Row", "city": "Leeds", "postal_code": "LS1 4AP", "country": "GB"}
    order_id = await market.place(market.order((lamp, 1), recipient=recipient))
    await market.booked(order_id)
    await market.move(order_id, "collected")
    await market.move(order_id, "delivered")
    await market.ended(order_id, "closed")
    (parcel,) = await market.at_carrier(order_id)
    label = await market.carrier("GET", f"/v1/parcels/{parcel['id']}/label")
    assert name in label.text
    tables = await market.rows("order", "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for table in [row["tablename"] for row in tables]:
        query = f'SELECT count(*) AS n FROM "{table}" AS t WHERE t::text LIKE $1'
        assert (await market.rows("order", query, f"%{name}%"))[0]["n"] == 0, table
    for process in ("order", "notify"):
        assert name not in market.platform.stack.log(process).read_text(), process
