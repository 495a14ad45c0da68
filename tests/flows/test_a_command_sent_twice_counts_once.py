"""Networks break after the effect and before the answer, so whatever is sent twice must count once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.flows.market import Market, until


async def test_an_order_sent_twice_is_one_order(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order = market.order((lamp, 1))
    first = await market.ask("order", "POST", "/orders", json=order)
    again = await market.ask("order", "POST", "/orders", json=order)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["order_id"] == again.json()["order_id"]
    assert first.headers["location"] == again.headers["location"]
    await market.outcome(first.json()["order_id"])
    assert await market.available(lamp) == 99


async def test_an_order_sent_twenty_times_at_once_is_one_order(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order, key = market.order((lamp, 1)), market.name("key")
    for keyed in (None, key):
        answers = await asyncio.gather(
            *(market.ask("order", "POST", "/orders", json=order, key=keyed) for _ in range(20))
        )
        assert {answer.status_code for answer in answers} <= {200, 201}
        assert len({answer.json()["order_id"] for answer in answers}) == 1
    found = (await market.ask("order", "GET", f"/orders?external_reference={order['external_reference']}")).json()
    assert len(found["items"]) == 1
    await market.outcome(found["items"][0]["order_id"])
    assert await market.available(lamp) == 99


async def test_a_reference_with_another_body_is_refused_and_another_channel_is_another_order(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order = market.order((lamp, 1))
    order_id = await market.place(order)
    other = await market.ask("order", "POST", "/orders", json={**order, "note": "ring twice"})
    assert (other.status_code, other.json()["type"]) == (409, "urn:isthmus:problem:reference_in_use")
    assert other.json()["errors"][0]["field"] == "external_reference"
    elsewhere = await market.ask("order", "POST", "/orders", json={**order, "channel": "app"})
    assert elsewhere.status_code == 201
    assert elsewhere.json()["order_id"] != order_id


async def test_an_idempotency_key_with_another_body_is_refused(market: Market):
    lamp, _ = await market.lamps_and_cups()
    key = market.name("key")
    await market.place(market.order((lamp, 1)), key=key)
    other = market.order((lamp, 2))
    answer = await market.ask("order", "POST", "/orders", json=other, key=key)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:isthmus:problem:idempotency_key_reused")
    assert not await market.rows(
        "order", "SELECT FROM orders WHERE external_reference = $1", other["external_reference"]
    )


async def test_a_refused_order_may_be_mended_under_the_same_key(market: Market):
    lamp, _ = await market.lamps_and_cups()
    key, order = market.name("key"), market.order((lamp, 1))
    unknown = {**order, "lines": [{"sku": "no-such-thing", "quantity": 1}]}
    assert (await market.ask("order", "POST", "/orders", json=unknown, key=key)).status_code == 422
    assert (await market.ask("order", "POST", "/orders", json=order, key=key)).status_code == 201


async def test_a_cancellation_sent_twice_refunds_once(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order_id = (await market.buy((lamp, 3)))["order_id"]
    await market.booked(order_id)
    key, body = market.name("key"), {"lines": [{"line": 1, "quantity": 1}]}
    answers = await asyncio.gather(*(market.cancel(order_id, key, **body) for _ in range(5)))
    assert {answer.status_code for answer in answers} <= {200, 202}  # 202 until the carrier has given the parcel back
    other = await market.cancel(order_id, key, lines=[{"line": 1, "quantity": 2}])
    assert other.status_code == 409
    await market.parcels(order_id, "booked")  # again, with what is left

    async def cancelled() -> Any:
        order = await market.look(order_id)
        return order if order["cancelled_amount"] != "0.00" else None

    order = await until("a lamp is cancelled", cancelled)
    assert (order["lines"][0]["cancelled"], order["cancelled_amount"]) == (1, "24.90")
    await market.all_notices_delivered()
    assert str(await market.kept_money(order_id)) == "49.80"
    whole = [await market.cancel(order_id), await market.cancel(order_id)]  # two keys, one end
    assert {answer.status_code for answer in whole} <= {200, 202}
    await market.gives_everything_back(order_id)
    assert await market.available(lamp) == 100


async def command(market: Market, name: str) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """Service, path, a body, and another body."""
    lamp, _ = await market.lamps_and_cups()
    line = {"sku": lamp, "warehouse": "leeds"}
    match name:
        case "receipt":
            return (
                "inventory",
                "/stock/receipts",
                {"lines": [line | {"quantity": 5}]},
                {"lines": [line | {"quantity": 6}]},
            )
        case "adjustment":
            bodies = [{"lines": [line | {"quantity": units, "reason": "broken"}]} for units in (-5, -6)]
            return "inventory", "/stock/adjustments", bodies[0], bodies[1]
        case "points":
            id_ = await market.customer(points=100)
            return "customer", f"/customers/{id_}/points", {"points": 5, "reason": "a"}, {"points": 6, "reason": "a"}
        case _:
            bodies = [
                {"price_list": "main", "lines": [{"sku": lamp, "unit_price": price}]} for price in ("5.00", "6.00")
            ]
            return "pricing", "/prices", bodies[0], bodies[1]


@pytest.mark.parametrize("name", ["receipt", "adjustment", "points", "prices"])
async def test_a_keyed_command_sent_many_times_counts_once(market: Market, name: str):
    service, path, body, other = await command(market, name)
    key = market.name("key")
    answers = await asyncio.gather(*(market.ask(service, "POST", path, json=body, key=key) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    again = await market.ask(service, "POST", path, json=other, key=key)
    assert (again.status_code, again.json()["type"]) == (409, "urn:isthmus:problem:idempotency_key_reused")
    match name:
        case "receipt" | "adjustment":
            after = await market.available(body["lines"][0]["sku"])
            assert after == (105 if name == "receipt" else 95)
        case "points":
            profile = (await market.ask("customer", "GET", path.removesuffix("/points"))).json()
            assert profile["points"]["balance"] == 105
        case _:
            prices = (await market.ask("pricing", "GET", f"/prices?sku={body['lines'][0]['sku']}")).json()["items"]
            assert [price["unit_price"] for price in prices if price["in_force"]] == ["5.00"]
            assert len(prices) == 2  # the first price, and the new one once


async def test_items_and_customers_registered_twice_are_registered_once(market: Market):
    item = {"items": [{"sku": market.name("green-vase"), "name": "A vase"}]}
    assert (await market.ask("inventory", "POST", "/items", json=item)).json() == {"received": 1, "changed": 1}
    assert (await market.ask("inventory", "POST", "/items", json=item)).json() == {"received": 1, "changed": 0}
    person = {"email": f"{market.name('carla')}@example.org"}
    first, again = [await market.ask("customer", "POST", "/customers", json=person) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["customer_id"] == again.json()["customer_id"]


async def test_parallel_adjustments_lose_none(market: Market):
    lamp, _ = await market.lamps_and_cups(lamps=10)
    changes = [5, 5, -4, -6, 3, -3] * 5
    answers = await asyncio.gather(
        *(
            market.ask(
                "inventory", "POST", "/stock/adjustments", key=market.name("adjust"),
                json={"lines": [{"sku": lamp, "warehouse": "leeds", "quantity": change, "reason": "count"}]},
            )
            for change in changes
        )
    )  # fmt: skip
    done = sum(change for change, answer in zip(changes, answers, strict=True) if answer.status_code == 200)
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert await market.available(lamp) == 10 + done
