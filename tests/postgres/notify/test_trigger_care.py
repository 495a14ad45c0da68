"""A batch of order events in; care out, once per order and trigger, and the messages queued."""

from __future__ import annotations

from datetime import timedelta
from time import time
from typing import TYPE_CHECKING

import httpx2

from services.notify.api import routes
from shared.app import build_app
from shared.auth import Principal
from shared.events.customer import BuyerIdentified
from shared.events.order import OrderRejected, ParcelItem, ParcelLost, ParcelRefused
from shared.health import Health
from shared.topics import ORDERS
from tests.postgres.notify.conftest import ANNA, NOW, cancelled, confirmed, message, order, placed, settled

if TYPE_CHECKING:
    from tests.postgres.notify.conftest import World


async def test_every_turn_is_triggered_once_in_one_batch_or_in_many(world: World) -> None:
    await world.hear(*[placed(1), confirmed(1), cancelled(1)] * 2)
    for event in [placed(2), confirmed(2), cancelled(2)]:
        await world.hear(event)
        await world.hear(event)
    for number in (1, 2):
        assert await world.said(number) == [
            ("CareTriggered", "order_confirmed", None), ("CareFailed", "order_confirmed", "order_ended"),
            ("CareTriggered", "order_cancelled", "requested"),
        ]  # fmt: skip
        assert await world.care(number) == {
            "order_confirmed": ("failed", "order_ended"), "order_cancelled": ("triggered", None),
        }  # fmt: skip
    assert await world.waiting() == 2


async def test_a_confirmation_after_the_end_is_not_told(world: World) -> None:
    await world.hear(cancelled(1))
    await world.hear(confirmed(1))
    assert list(await world.care()) == ["order_cancelled"]


async def test_an_order_imported_from_the_past_is_silent(world: World) -> None:
    life = (placed(1), confirmed(1), settled(1))
    await world.take(*(message(ORDERS, event, recorded_at=NOW + timedelta(days=8)) for event in life))
    assert (await world.said(), await world.waiting()) == ([], 0)
    assert [row["skus"] for row in await world.rows("SELECT skus FROM care_orders")] == [["RED-LAMP"]]


async def test_without_mail_nothing_is_queued(world: World) -> None:
    world.settings.mail = False
    await world.confirmed()
    assert (await world.care(), await world.waiting()) == ({"order_confirmed": ("triggered", None)}, 0)


async def test_a_message_waits_a_minute_for_a_buyer_who_is_not_known_yet(world: World) -> None:
    rejected = OrderRejected(occurred_at=NOW, order_id=order(1), reason="stock")
    await world.hear(placed(1, customer_id=None), rejected)
    assert await world.rows("SELECT due_at - queued_at AS wait FROM messages") == [(timedelta(minutes=1),)]
    await world.send()
    assert world.post.mails == []
    identified = BuyerIdentified(occurred_at=NOW, order_id=order(1), customer_id=ANNA, recipient_id=order(3))
    await world.hear(identified)
    await world.send()
    assert [mail["Subject"] for mail in world.post.mails] == ["We could not accept your order 1001"]
    assert await world.care() == {"order_refused": ("sent", None)}


async def test_a_buyer_who_becomes_known_late_is_still_told(world: World) -> None:
    await world.hear(placed(1, customer_id=None), OrderRejected(occurred_at=NOW, order_id=order(1), reason="stock"))
    for _ in range(5):
        await world.all_due()
        await world.send()
    assert await world.care() == {"order_refused": ("triggered", None)}
    ((pause,),) = await world.rows("SELECT round(extract(epoch FROM due_at - now()))::int FROM messages")
    assert pause == 16  # it grows
    await world.hear(BuyerIdentified(occurred_at=NOW, order_id=order(1), customer_id=ANNA, recipient_id=order(3)))
    await world.send()
    assert (await world.care(), len(world.post.mails)) == ({"order_refused": ("sent", None)}, 1)


async def test_a_buyer_who_stays_unknown_is_given_up(world: World) -> None:
    await world.hear(placed(1, customer_id=None), OrderRejected(occurred_at=NOW, order_id=order(1), reason="stock"))
    await world.execute("UPDATE messages SET queued_at = now() - interval '25 hours'")
    for _ in range(2):
        await world.all_due()
        await world.send()
    assert (await world.said())[-1] == ("CareFailed", "order_refused", "unknown_customer")
    assert (world.post.mails, await world.waiting()) == ([], 0)


async def test_a_log_read_from_its_beginning_mails_nobody(world: World) -> None:
    old = NOW - timedelta(days=8)
    life = [event.model_copy(update={"occurred_at": old}) for event in (placed(1), confirmed(1), settled(1))]
    await world.take(*(message(ORDERS, event, recorded_at=old) for event in life))
    assert (await world.said(), await world.waiting()) == ([], 0)


async def test_a_message_that_waited_until_it_was_stale_is_not_sent(world: World) -> None:
    await world.confirmed()
    await world.execute("UPDATE care SET occurred_at = now() - interval '7 days 1 minute'")
    await world.send()
    assert (await world.care(), world.post.mails) == ({"order_confirmed": ("failed", "stale")}, [])
    assert (await world.said())[-1] == ("CareFailed", "order_confirmed", "stale")


async def test_an_order_placed_before_channels_were_known_is_silent_where_any_channel_is(world: World) -> None:
    await world.execute("INSERT INTO care_orders (order_id, customer_id, version, ended) VALUES ($1, $2, 0, false)",
                        order(1), ANNA)  # fmt: skip
    world.settings.silent_channels = ("bazaar",)
    await world.hear(confirmed(1))
    assert await world.care() == {}


async def test_an_order_whose_only_parcel_is_lost_is_told_so_and_not_that_it_was_cancelled(world: World) -> None:
    await world.confirmed()
    await world.send()
    lost = ParcelLost(
        occurred_at=NOW, order_id=order(1), parcel=1, items=(ParcelItem(sku="RED-LAMP", quantity=1),)
    )  # fmt: skip
    await world.hear(lost)
    await world.hear(cancelled(1).model_copy(update={"reason": "lost"}))
    await world.send()
    assert [mail["Subject"] for mail in world.post.mails][1:] == ["A parcel of your order 1001 was lost"]
    assert await world.care() == {"order_confirmed": ("sent", None), "parcel_lost": ("sent", None)}


async def test_a_parcel_that_the_carrier_does_not_take_is_told(world: World) -> None:
    await world.confirmed()
    await world.send()
    refused = ParcelRefused(occurred_at=NOW, order_id=order(1), parcel=1, reason="no such address")
    await world.hear(refused, cancelled(1).model_copy(update={"reason": "undeliverable"}))
    await world.send()
    assert [mail["Subject"] for mail in world.post.mails][1:] == ["We could not deliver a parcel of your order 1001"]


class Anyone:
    async def principal(self, _token: str) -> Principal:
        return Principal("tester", frozenset({"care:read"}), time() + 60)


async def test_care_is_listed_of_one_order_and_of_all_with_what_became_of_it(world: World) -> None:
    for number in (1, 2):
        await world.hear(placed(number, customer_id=None), confirmed(number), cancelled(number))
    await world.send()
    app = build_app("notify", routes(world.database), Health())
    app.state.authenticator = Anyone()
    headers = {"Authorization": "Bearer x"}
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://notify", headers=headers) as client:
        one = (await client.get("/care", params={"order_id": str(order(1))})).json()
        assert [(care["trigger"], care["state"], care["failure"]) for care in one["items"]] == [
            ("order_cancelled", "sent", None), ("order_confirmed", "failed", "order_ended"),
        ]  # fmt: skip
        assert [care["sent_at"] is not None for care in one["items"]] == [True, False]
        assert {care["customer_id"] for care in one["items"]} == {str(ANNA)}
        page = (await client.get("/care", params={"limit": 3})).json()
        rest = (await client.get("/care", params={"limit": 3, "cursor": page["next"]})).json()
        assert (len(page["items"]), len(rest["items"]), rest["next"]) == (3, 1, None)
        assert (await client.get("/care", params={"cursor": "x"})).status_code == 422
