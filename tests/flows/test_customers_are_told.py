"""Mails on real SMTP: each at most once, to whom it may be sent at that moment, whatever breaks meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.flows.market import Market, until


@dataclass(frozen=True)
class Customer:
    id: str
    email: str


async def customer(market: Market, *, marketing: bool = False) -> Customer:
    email = f"{market.name('cleo')}@example.org"
    answer = await market.platform.ask("customer", "POST", "/customers", json={"email": email, "name": "Cleo Clay"})
    known = Customer(answer.json()["customer_id"], email)
    if marketing:
        await consents(market, known, "marketing_email", granted=True)
    return known


def by(who: Customer) -> dict[str, Any]:
    """What an order says of this buyer."""
    return {"customer_id": who.id, "buyer": {"name": "Cleo Clay", "email": who.email}}


async def consents(market: Market, who: Customer, purpose: str, *, granted: bool) -> None:
    body = {"granted": granted, "source": "account"}
    await market.platform.ask("customer", "PUT", f"/customers/{who.id}/consents/{purpose}", json=body)


async def mails(market: Market, who: Customer) -> list[dict[str, Any]]:
    params = {"to": who.email, "limit": 500}
    return (await market.platform.ask("mail", "GET", "/messages", params=params)).json()["data"]


async def care(market: Market, order_id: str) -> dict[str, dict[str, Any]]:
    """What became of each occasion."""
    found = await market.platform.ask("notify", "GET", "/care", params={"order_id": order_id})
    return {one["trigger"]: one for one in found.json()["items"]}


async def told(market: Market, order_id: str, trigger: str, state: str, seconds: float = 20) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        one = (await care(market, order_id)).get(trigger)
        return one if one and one["state"] == state else None

    return await until(f"{trigger} of {order_id} is {state}", there, seconds)


@asynccontextmanager
async def no_mail_server(market: Market) -> AsyncGenerator[None]:
    """Whoever connects is sent away."""
    await market.platform.ask("mail", "PUT", "/sandbox/behaviour", json={"accepting": False})
    try:
        yield
    finally:
        await market.platform.ask("mail", "PUT", "/sandbox/behaviour", json={})


async def delivered(market: Market, who: Customer, *lines: tuple[str, int]) -> str:
    order_id = await market.place(market.order(*lines, **by(who)))
    await market.booked(order_id)
    await market.move(order_id, "delivered")
    await market.ended(order_id, "closed")
    return order_id


async def test_a_delivered_order_is_thanked_for_once_with_something_that_goes_with_it(market: Market):
    lamp, shade = market.name("red-lamp"), market.name("lamp-shade")
    await market.stock({lamp: ("24.90", 10)})
    items = [{"sku": shade, "name": "A shade for the red lamp"}]
    receipt = [{"sku": shade, "warehouse": "leeds", "quantity": 10}]
    await market.stock({shade: ("9.00", 0)})
    await market.platform.catalogue(items, warehouses=(), receipts=receipt, key=market.name("shade"))
    await market.buy((lamp, 1), (shade, 1))
    who = await customer(market, marketing=True)
    order_id = await delivered(market, who, (lamp, 1))
    await told(market, order_id, "thank_you", "sent")
    thanks = [one for one in await mails(market, who) if "Thank you" in one["subject"]]
    assert len(thanks) == 1
    assert "A shade for the red lamp" in thanks[0]["text"]
    assert "List-Unsubscribe" in thanks[0]["headers"]

    async def shown() -> bool:
        steps = [(one["type"], one["detail"].get("trigger")) for one in (await market.look(order_id))["timeline"]]
        history = (await market.ask("customer", "GET", f"/customers/{who.id}/contacts")).json()["items"]
        noted = Counter((one["trigger"], one["state"]) for one in history)
        return ("CareSent", "thank_you") in steps and noted["thank_you", "sent"] == 1

    await until("the order's timeline and the customer's history show it", shown)


async def test_without_consent_there_is_no_thank_you_but_the_order_is_confirmed_to_its_buyer(market: Market):
    lamp, _ = await market.lamps_and_cups()
    who = await customer(market)
    order_id = await delivered(market, who, (lamp, 1))
    assert (await told(market, order_id, "thank_you", "failed"))["failure"] == "no_consent"
    await told(market, order_id, "order_confirmed", "sent")
    assert len(await mails(market, who)) == 1


async def test_a_refused_buyer_is_told_why(market: Market):
    lamp, _ = await market.lamps_and_cups(lamps=1)
    who = await customer(market)
    order = await market.buy((lamp, 5), **by(who))
    assert order["reason"] == "stock"
    await told(market, order["order_id"], "order_refused", "sent")
    (mail,) = await mails(market, who)
    assert "could not accept" in mail["subject"]
    assert "because" in mail["text"]


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.long)])
async def test_while_the_mail_server_is_away_mails_wait_and_then_come_once(market: Market, seconds: int):
    lamp, _ = await market.lamps_and_cups()
    people = [await customer(market) for _ in range(5)]
    async with no_mail_server(market):
        orders = [await market.buy((lamp, 1), **by(who)) for who in people]
        await asyncio.sleep(seconds)
        for order in orders:
            assert (await care(market, order["order_id"]))["order_confirmed"]["state"] == "triggered"
    for order in orders:
        await told(market, order["order_id"], "order_confirmed", "sent", 90)
    for who in people:
        assert len(await mails(market, who)) == 1


async def test_who_opts_out_between_trigger_and_sending_gets_no_mail(market: Market):
    lamp, _ = await market.lamps_and_cups()
    shy, other = await customer(market), await customer(market)
    async with no_mail_server(market):
        refused = await market.buy((lamp, 1), **by(shy))
        wanted = await market.buy((lamp, 1), **by(other))
        await told(market, refused["order_id"], "order_confirmed", "triggered")
        await consents(market, shy, "order_updates", granted=False)
    failed = await told(market, refused["order_id"], "order_confirmed", "failed", 60)
    assert failed["failure"] == "opted_out"
    await told(market, wanted["order_id"], "order_confirmed", "sent", 60)
    assert (len(await mails(market, shy)), len(await mails(market, other))) == (0, 1)


async def test_a_cancelled_order_is_no_longer_confirmed_by_mail(market: Market):
    lamp, _ = await market.lamps_and_cups()
    who = await customer(market)
    async with no_mail_server(market):
        order_id = (await market.buy((lamp, 1), **by(who)))["order_id"]
        await told(market, order_id, "order_confirmed", "triggered")
        await market.cancel(order_id)
        await market.ended(order_id, "cancelled")
        await told(market, order_id, "order_confirmed", "failed")
    await told(market, order_id, "order_cancelled", "sent", 60)
    assert [one["subject"] for one in await mails(market, who) if "cancel" not in one["subject"].lower()] == []


@pytest.mark.long
async def test_no_mail_comes_twice_when_notify_is_killed_while_it_sends(market: Market):
    lamp, _ = await market.lamps_and_cups()
    people = [await customer(market) for _ in range(10)]
    ids = [await market.place(market.order((lamp, 1), **by(who))) for who in people]
    for pause in (0.3, 1.5):
        await asyncio.sleep(pause)
        await asyncio.to_thread(market.platform.stack.kill, "notify")
    await asyncio.gather(*(market.outcome(order_id) for order_id in ids))

    async def decided() -> bool:
        states = [(await care(market, order_id)).get("order_confirmed") for order_id in ids]
        # a kill between handing over and the answer leaves one that is unknown, once its lease has run out
        return all(one and one["state"] != "triggered" for one in states)

    await until("every mail is sent or given up", decided, 200)
    for who, order_id in zip(people, ids, strict=True):
        one = (await care(market, order_id))["order_confirmed"]
        count = len(await mails(market, who))
        assert count == 1 if one["state"] == "sent" else count <= 1, one
