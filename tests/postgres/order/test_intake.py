"""What is accepted is recorded once: by reference, by idempotency key, singly and in bulk."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import Any
from uuid import UUID

import httpx2
import orjson
import pytest

from services.order.intake import OrderBody, fingerprint
from shared.postgres import Database
from shared.sealing import unseal
from tests.support.kernel import rows, said, value
from tests.support.shop import PRIVATE_KEY, body, counter, open_shop, order_row, paying_order


async def count(database: Database) -> int:
    return await value(database, "SELECT count(*) FROM orders")


async def test_an_accepted_order_is_announced_and_its_buyer_sealed(database: Database):
    await open_shop(database)
    async with counter(database) as client:
        answer = await client.post("/orders", json=body())
    order_id = answer.json()["order_id"]
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/orders/{order_id}")
    assert answer.json()["waiting_for"] == ["identification", "price", "stock"]
    assert await said(database) == [("OrderPlaced", order_id, 1), ("BuyerSealed", order_id, 1)]
    sealed = await value(database, "SELECT sealed FROM sealed_buyers")
    assert unseal(bytes(PRIVATE_KEY), sealed, UUID(order_id)).buyer.name == "Anna Ash"


async def test_the_answer_is_what_is_then_found(database: Database):
    """It is made without reading: nothing may be missing, and no time or amount look different."""
    await open_shop(database)
    lamp = {"sku": "RED-LAMP", "quantity": 1, "unit_price": "5.50"}
    odd = body(
        "b", lines=[lamp], payment={"method": "prepaid", "fee": "1.00"}, expected_total="5.50", coupon="SUMMER",
        placed_at="2026-01-02T03:04:05.678901+05:30", fulfilment="channel", customer_id=str(UUID(int=7)), points=5,
    )  # fmt: skip
    async with counter(database) as client:
        for one in (body("a"), odd):
            answer = await client.post("/orders", json=one)
            assert answer.status_code == 201
            assert answer.json() == (await client.get(answer.headers["Location"])).json()


async def test_nothing_personal_is_stored_or_said_in_the_clear(database: Database):
    await open_shop(database)
    async with counter(database) as client:
        await client.post("/orders", json=body(note="Leave it with Berta"), headers={"Idempotency-Key": "k"})
    tables = ("orders", "timeline", "sealed_buyers", "outbox", "idempotency_keys")
    for table in tables:
        for row in await rows(database, f"SELECT * FROM {table}"):
            text = str(list(row.values()))
            assert not [name for name in ("Ash", "ash.example", "Elm Row", "Berta", "89073") if name in text], table


async def test_the_same_reference_and_body_find_the_same_order(database: Database):
    await open_shop(database)
    async with counter(database) as client:
        first, again = [await client.post("/orders", json=body()) for _ in range(2)]
        other = await client.post("/orders", json=body(note="ring twice"))
        elsewhere = await client.post("/orders", json=body(channel="market"))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["order_id"] == again.json()["order_id"]
    assert (other.status_code, other.json()["type"]) == (409, "urn:isthmus:problem:reference_in_use")
    assert elsewhere.status_code == 201
    assert await count(database) == 2


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}])
async def test_50_identical_posts_at_once_are_one_order(database: Database, headers: dict[str, str]):
    await open_shop(database)
    async with counter(database) as client:
        answers = await asyncio.gather(*(client.post("/orders", json=body(), headers=headers) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert len({answer.json()["order_id"] for answer in answers}) == 1
    assert await count(database) == 1
    assert len(await said(database)) == 2


async def test_the_same_idempotency_key_with_another_body_is_refused(database: Database):
    await open_shop(database)
    async with counter(database) as client:
        headers = {"Idempotency-Key": "once"}
        first = await client.post("/orders", json=body(), headers=headers)
        again = await client.post("/orders", json=body(), headers=headers)
        other = await client.post("/orders", json=body("shop-2"), headers=headers)
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert other.json()["type"] == "urn:isthmus:problem:idempotency_key_reused"
    assert await count(database) == 1


async def test_a_refused_order_leaves_its_idempotency_key_free(database: Database):
    await open_shop(database)
    async with counter(database) as client:
        headers = {"Idempotency-Key": "once"}
        lines = [{"sku": "GREEN-HAT", "quantity": 1}]
        refused = await client.post("/orders", json=body(lines=lines), headers=headers)
        placed = await client.post("/orders", json=body(), headers=headers)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "lines.0.sku")
    assert placed.status_code == 201


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"lines": []}, "lines"),
        ({"lines": [{"sku": "RED-LAMP", "quantity": 0}]}, "lines.0.quantity"),
        ({"lines": [{"sku": "RED-LAMP", "quantity": "1"}]}, "lines.0.quantity"),
        ({"lines": [{"sku": "RED-LAMP", "quantity": 1.5}]}, "lines.0.quantity"),
        ({"lines": [{"sku": "RED-LAMP", "quantity": 10**30}]}, "lines.0.quantity"),
        ({"lines": [{"sku": "RED-LAMP", "quantity": True}]}, "lines.0.quantity"),
        ({"lines": [{"sku": "RED\x00LAMP", "quantity": 1}]}, "lines.0.sku"),
        ({"external_reference": "shop\x001"}, "external_reference"),
        ({"coupon": "\x00"}, "coupon"),
        ({"currency": "EURO"}, "currency"),
        ({"channel": "Shop"}, "channel"),
        ({"expected_total": "NaN"}, "expected_total"),
        ({"expected_total": "1.234"}, "expected_total"),
        ({"points": -1}, "points"),
        ({"points": 5}, "points"),  # nobody's: an address that anybody may type must not spend its owner's points
        ({"coupon": "ann@example.org"}, "coupon"),
        ({"external_reference": "Ann, High Street 5"}, "external_reference"),
        ({"surprise": 1}, "surprise"),
        ({"payment": {"method": "cash"}}, "payment"),
        ({"recipient": {"name": "Anna", "street": "Elm", "city": "Ulm", "country": "Germany"}}, "recipient.country"),
    ],
)
async def test_what_is_wrong_is_named(database: Database, changes: dict[str, Any], field: str):
    await open_shop(database)
    async with counter(database) as client:
        answer = await client.post("/orders", json=body(**changes))
    assert (answer.status_code, [one["field"] for one in answer.json()["errors"]]) == (422, [field]), answer.text
    assert "Ash" not in answer.text


async def test_malformed_json_and_huge_bodies_are_refused(database: Database):
    async with counter(database) as client:
        headers = {"Content-Type": "application/json"}
        assert (await client.post("/orders", content=b"{", headers=headers)).status_code == 400
        assert (await client.post("/orders", content=b" " * 3_000_000, headers=headers)).status_code == 413
        assert (await client.post("/orders", content=b'"\xff"', headers=headers)).status_code in (400, 422)


async def test_a_channels_own_prices_and_payment_need_its_scope(database: Database):
    await open_shop(database)
    lines = [{"sku": "RED-LAMP", "quantity": 1, "unit_price": "3.50"}]
    trusted = body(lines=lines, payment={"method": "prepaid"}, placed_at="2010-12-01T08:26:00Z")
    async with counter(database, scope="orders:read orders:write") as client:
        answer = await client.post("/orders", json=trusted)
    assert answer.status_code == 403
    assert {one["field"] for one in answer.json()["errors"]} == {"placed_at", "payment.method", "lines.unit_price"}
    async with counter(database) as client:
        assert (await client.post("/orders", json=trusted)).status_code == 201


async def test_an_order_may_name_a_quote_but_not_beside_prices_of_its_own(database: Database):
    await open_shop(database)
    quote_id = str(UUID(int=9))
    lines = [{"sku": "RED-LAMP", "quantity": 1, "unit_price": "3.50"}]
    async with counter(database) as client:
        answer = await client.post("/orders", json=body(quote_id=quote_id))
        other = await client.post("/orders", json=body(quote_id=str(UUID(int=8))))
        both = await client.post("/orders", json=body("shop-2", quote_id=quote_id, lines=lines))
        none = await client.post("/orders", json=body("shop-2", quote_id="soon"))
    assert (answer.status_code, answer.json()["quote_id"], other.status_code) == (201, quote_id, 409)
    for refused in (both, none):
        assert (refused.status_code, [one["field"] for one in refused.json()["errors"]]) == (422, ["quote_id"])
    placed = await value(database, "SELECT payload FROM outbox WHERE type LIKE '%OrderPlaced%'")
    assert orjson.loads(placed)["quote_id"] == quote_id


def test_a_request_of_before_there_were_quotes_keeps_its_fingerprint():
    order = OrderBody.model_validate(body())
    before = order.model_dump(mode="json", exclude={"quote_id"}, exclude_none=True)
    canonical = orjson.dumps(before, option=orjson.OPT_SORT_KEYS)
    assert fingerprint(order, "key") == hmac.digest(b"key", canonical, hashlib.sha256)


async def test_without_a_sealing_key_no_order_is_taken(database: Database):
    async with database.transaction() as tx:
        await tx.db.execute("INSERT INTO known_items VALUES ('RED-LAMP', true, 1), ('BLUE-CUP', true, 1)")
    async with counter(database) as client:
        answer = await client.post("/orders", json=body())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


# -- bulk --------------------------------------------------------------------------------------------------------------


async def bulk(client: httpx2.AsyncClient, *lines: dict[str, Any] | bytes, on_error: str = "skip") -> list[int]:
    content = b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines)
    answer = await client.post("/orders/bulk", params={"on_error": on_error}, content=content)
    assert answer.status_code == 200, answer.text
    reports = [orjson.loads(line) for line in answer.content.splitlines()]
    assert [report["row"] for report in reports] == list(range(1, len(lines) + 1))
    return [report["status"] for report in reports]


BAD_SKU = body("bad", lines=[{"sku": "GREEN-HAT", "quantity": 1}])
NUL = body("shop\x00")


async def test_bulk_skips_bad_rows_and_reports_on_each(database: Database):
    await open_shop(database)
    async with counter(database) as client:
        lines = (body("a"), b"{", BAD_SKU, {"channel": 1}, NUL, body("b"), body("a"), body("a", note="ring twice"))
        assert await bulk(client, *lines) == [201, 400, 422, 422, 422, 201, 200, 409]
        assert await bulk(client, *lines) == [200, 400, 422, 422, 422, 200, 200, 409]
    assert await count(database) == 2


@pytest.mark.parametrize(("bad", "status"), [(BAD_SKU, 422), (b"{", 400), (body("known", note="ring twice"), 409)])
async def test_bulk_stops_at_the_first_bad_row(database: Database, bad: dict[str, Any] | bytes, status: int):
    await open_shop(database)
    async with counter(database) as client:
        await bulk(client, body("known"))
        lines = (body("a"), body("b"), bad, body("c"), b"{")
        assert await bulk(client, *lines, on_error="stop") == [201, 201, status, 424, 424]
    assert await count(database) == 3


async def test_bulk_stops_across_hundreds(database: Database):
    await open_shop(database)
    lines = [body(f"shop-{n}") for n in range(250)]
    lines[149] = BAD_SKU
    async with counter(database) as client:
        statuses = await bulk(client, *lines, on_error="stop")
        assert statuses == [201] * 149 + [422] + [424] * 100
        lines[149] = body("shop-149")
        assert await bulk(client, *lines, on_error="stop") == [200] * 149 + [201] * 101
    assert await count(database) == 250


async def test_of_two_rows_with_one_reference_the_first_is_placed(database: Database):
    await open_shop(database)
    async with counter(database) as client:
        lines = [row for n in range(40) for row in (body(f"s-{n}"), body(f"s-{n}", note="ring twice"))]
        assert await bulk(client, *lines) == [201, 409] * 40


# -- cancellations over HTTP ------------------------------------------------------------------------------------------


async def test_a_cancellation_sent_twice_is_one(database: Database):
    await open_shop(database)
    order_id = await paying_order(database)
    async with counter(database) as client:
        path, key = f"/orders/{order_id}/cancellations", {"Idempotency-Key": "stop"}
        answers = await asyncio.gather(*(client.post(path, json={}, headers=key) for _ in range(10)))
        other = await client.post(path, json={"reason": "other"}, headers=key)
        again = await client.post(path, json={}, headers={"Idempotency-Key": "once more"})
        units = {"lines": [{"line": 1, "quantity": 1}]}
        late = await client.post(path, json=units, headers={"Idempotency-Key": "lines"})
    assert {answer.json()["state"] for answer in answers} == {"cancelled"}
    assert (other.status_code, again.status_code, late.status_code) == (409, 200, 409)
    assert (await order_row(database, order_id))["version"] == 3


async def test_an_unknown_order_is_not_found(database: Database):
    async with counter(database) as client:
        unknown = UUID(int=7)
        assert (await client.get(f"/orders/{unknown}")).status_code == 404
        answer = await client.post(f"/orders/{unknown}/cancellations", json={}, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 404
        assert (await client.get("/orders", params={"cursor": "nonsense"})).status_code == 422
        assert (await client.get("/orders", params={"channel": "a\x00"})).status_code == 422


async def test_orders_are_listed_newest_first_page_by_page(database: Database):
    await open_shop(database)
    async with counter(database) as client:
        await bulk(client, *(body(f"shop-{n}") for n in range(5)))
        seen, cursor = list[str](), None
        while True:
            page = (await client.get("/orders", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
            seen += [one["external_reference"] for one in page["items"]]
            if (cursor := page["next"]) is None:
                break
    assert seen == [f"shop-{n}" for n in range(4, -1, -1)]
