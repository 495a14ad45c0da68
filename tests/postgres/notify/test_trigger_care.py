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
from shared.events.order import OrderRejected
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


async def test_a_buyer_who_stays_unknown_is_not_written_to(world: World) -> None:
    await world.hear(placed(1, customer_id=None), OrderRejected(occurred_at=NOW, order_id=order(1), reason="stock"))
    await world.all_due()
    await world.send()
    assert (await world.said())[-1] == ("CareFailed", "order_refused", "unknown_customer")
    assert (world.post.mails, await world.waiting()) == ([], 0)


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
