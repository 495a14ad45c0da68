"""Pricing over HTTP: quotes explain themselves, and errors name the field."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from time import time
from typing import Any
from uuid import UUID

import httpx2
import pytest_asyncio

from services.pricing import catalogue
from services.pricing.api import routes
from services.pricing.handlers import price_orders
from shared.app import build_app
from shared.auth import Principal
from shared.health import Health
from shared.postgres import Database
from tests.postgres.pricing.world import handle, kinds, order_id, outbox, placed


class Anyone:
    """Lets every token pass, with all scopes."""

    async def principal(self, _token: str) -> Principal:
        return Principal("tester", frozenset({"prices:read", "prices:write"}), time() + 60)


@pytest_asyncio.fixture
async def client(database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    app = build_app("pricing", routes(database), Health())
    app.state.authenticator = Anyone()
    transport = httpx2.ASGITransport(app=app)
    headers = {"Authorization": "Bearer x"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://pricing", headers=headers) as client:
        await ok(client.put("/price-lists/retail", json={"name": "Retail", "currency": "EUR"}))
        lines = [{"sku": "RED-LAMP", "unit_price": "20.00"}, {"sku": "BLUE-CUP", "unit_price": "4.50"}]
        body = {"price_list": "retail", "lines": lines, "valid_from": "2020-01-01T00:00:00Z"}
        assert (await ok(client.post("/prices", json=body)))["changed"] == 2
        async with database.transaction() as tx:
            await catalogue.learn_tax_classes(tx, {"RED-LAMP": ("standard", 1), "BLUE-CUP": ("standard", 1)})
        yield client


async def ok(request: Any) -> Any:
    answer = await request
    assert answer.status_code == 200, answer.text
    return answer.json()


async def problem(request: Any) -> tuple[int, str, list[str]]:
    """Status, code and the fields named."""
    answer = await request
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, body["type"].rsplit(":", 1)[1], [error["field"] for error in body.get("errors", [])]


def ask(*skus: str, **more: Any) -> dict[str, Any]:
    return {"currency": "EUR", "country": "DE", "lines": [{"sku": sku, "quantity": 1} for sku in skus], **more}


async def test_a_quote_explains_itself_and_holds_nothing(client: httpx2.AsyncClient, database: Database) -> None:
    await ok(client.put("/coupons/FIVE", json={"amount": "5", "currency": "EUR", "limit_total": 1}))
    for _ in range(2):
        quote = await ok(client.post("/quotes", json=ask("RED-LAMP", "BLUE-CUP", coupon="FIVE", points=100)))
        assert (quote["total"], quote["points_value"], quote["discount"]) == ("18.50", "1.00", "5.00")
        lamp = quote["lines"][0]
        assert (lamp["price_list"], lamp["unit_price"], lamp["coupon_discount"]) == ("retail", "20.00", "4.08")
        assert (lamp["total"], lamp["tax_percent"], lamp["tax"]) == ("15.92", "19", "2.54")
    assert (await ok(client.get("/coupons/FIVE")))["used"] == 0
    assert await outbox(database) == []


async def test_a_quote_is_kept_and_says_until_when(client: httpx2.AsyncClient, database: Database) -> None:
    before = datetime.now(UTC)
    quote = await ok(client.post("/quotes", json=ask("RED-LAMP", points=100)))
    short = await ok(client.post("/quotes", json=ask("RED-LAMP", valid_minutes=1)))
    ends = [datetime.fromisoformat(one["valid_until"]) - before for one in (quote, short)]
    assert [round(end.total_seconds() / 60) for end in ends] == [15, 1]
    assert await ok(client.get(f"/quotes/{quote['quote_id']}")) == quote
    assert (quote["state"], quote["order_id"], quote["points"]) == ("open", None, 100)
    order = placed(1, quote=UUID(short["quote_id"]), buyer=None)
    await handle(database, price_orders, order, recorded_at=before)
    used = await ok(client.get(f"/quotes/{short['quote_id']}"))
    assert (used["state"], used["order_id"]) == ("held", str(order_id(1)))


async def test_a_quote_for_too_long_or_of_no_such_id_is_refused(client: httpx2.AsyncClient) -> None:
    for minutes in (0, 16, "soon"):
        asked = client.post("/quotes", json=ask("RED-LAMP", valid_minutes=minutes))
        assert await problem(asked) == (422, "invalid", ["valid_minutes"])
    assert (await problem(client.get(f"/quotes/{UUID(int=7)}")))[:2] == (404, "not_found")
    assert (await problem(client.get("/quotes/none")))[:2] == (422, "invalid")


async def test_a_quote_that_cannot_be_given_names_the_field(client: httpx2.AsyncClient) -> None:
    assert await problem(client.post("/quotes", json=ask("RED-LAMP", "TOAD"))) == (422, "no_price", ["lines.1.sku"])
    assert await problem(client.post("/quotes", json=ask("RED-LAMP", coupon="X"))) == (
        422,
        "coupon_unknown",
        ["coupon"],
    )
    many = client.post("/quotes", json=ask("RED-LAMP", points=5000))
    assert await problem(many) == (422, "points_exceed_total", ["points"])
    unknown = client.post("/quotes", json=ask("RED-LAMP") | {"currency": "XXX"})
    assert await problem(unknown) == (422, "invalid", ["currency"])


async def test_what_a_database_cannot_keep_is_refused(client: httpx2.AsyncClient) -> None:
    assert (await problem(client.post("/quotes", json=ask("RED\0LAMP"))))[:2] == (422, "invalid")
    assert (await problem(client.get("/prices", params={"sku": "\0"})))[:2] == (422, "invalid")
    assert (await problem(client.get("/coupons/%00")))[:2] == (422, "invalid")
    long_ago = {"percent": "5", "valid_from": "0001-01-01T00:00:00+01:00"}
    assert await problem(client.put("/coupons/OLD", json=long_ago)) == (422, "invalid", ["valid_from"])


async def test_coupons_are_put_listed_and_shown_with_their_uses(client: httpx2.AsyncClient, database: Database) -> None:
    for code in "ABC":
        await ok(client.put(f"/coupons/{code}", json={"percent": "10"}))
    await handle(database, price_orders, placed(1, coupon="B"))
    shown = await ok(client.get("/coupons/B"))
    assert (shown["used"], shown["uses"][0]["order_id"]) == (1, str(order_id(1)))
    page = await ok(client.get("/coupons", params={"limit": 2}))
    rest = await ok(client.get("/coupons", params={"limit": 2, "cursor": page["next"]}))
    assert [one["code"] for one in page["items"] + rest["items"]] == ["A", "B", "C"]
    assert (await client.get("/coupons/Z")).status_code == 404
    bad = await problem(client.put("/coupons/D", json={"percent": "10", "amount": "3", "currency": "EUR"}))
    assert bad[0] == 422


async def test_an_order_shows_how_it_was_priced(client: httpx2.AsyncClient, database: Database) -> None:
    await handle(database, price_orders, placed(1))
    shown = await ok(client.get(f"/orders/{order_id(1)}/price"))
    assert (shown["state"], shown["answer"]["total"]) == ("priced", "20.00")
    assert (await client.get(f"/orders/{order_id(2)}/price")).status_code == 404


async def test_the_same_key_finds_the_first_answer(client: httpx2.AsyncClient, database: Database) -> None:
    body = {"price_list": "retail", "lines": [{"sku": "RED-LAMP", "unit_price": "25"}]}
    first = await ok(client.post("/prices", json=body, headers={"Idempotency-Key": "k"}))
    again = await ok(client.post("/prices", json=body, headers={"Idempotency-Key": "k"}))
    assert first == again
    assert len(await outbox(database, "price")) == 3
    prices = await ok(client.get("/prices", params={"sku": "RED-LAMP"}))
    assert [(one["unit_price"], one["in_force"]) for one in prices["items"]] == [("20.00", False), ("25", True)]
    page = await ok(client.get("/prices", params={"sku": "RED-LAMP", "limit": 1}))
    rest = await ok(client.get("/prices", params={"sku": "RED-LAMP", "limit": 1, "cursor": page["next"]}))
    assert rest["items"][0]["unit_price"] == "25"
    assert await problem(client.get("/prices", params={"sku": "A", "cursor": "!"})) == (422, "invalid", ["cursor"])
    assert await kinds(database) == []


async def test_rules_are_put_and_read(client: httpx2.AsyncClient) -> None:
    await ok(client.put("/tier-rules/platinum", json={"percent": "7.5"}))
    rules = {rule["tier"]: rule["percent"] for rule in await ok(client.get("/tier-rules"))}
    assert rules == {"base": "0", "silver": "3", "gold": "5", "platinum": "7.5"}
    await ok(
        client.put("/tax-rates", json={"rates": [{"country": "CH", "percent": "8.1", "valid_from": "2024-01-01"}]})
    )
    assert (await ok(client.get("/tax-rates", params={"country": "CH"})))[0]["percent"] == "8.1"
    await ok(client.put("/point-values/JPY", json={"value": "1"}))
    assert await ok(client.get("/point-values")) == [{"value": "1", "currency": "JPY"}]
    assert [one["code"] for one in await ok(client.get("/price-lists"))] == ["retail"]
