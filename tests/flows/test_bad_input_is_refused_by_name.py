"""Whatever is sent: a clear problem that names the field, never a 500, and nothing half done."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import socket
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import orjson
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from tests.flows.market import Market, until

PROBLEM = "application/problem+json"
NUL = "a\0b"


def refused(answer: httpx2.Response, status: int, field: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:isthmus:problem:")
    assert problem["title"]
    if field is not None:
        assert [error["field"] for error in problem["errors"]][:1] == [field], problem


@pytest.fixture(scope="module")
async def lamp(market: Market) -> str:
    return (await market.lamps_and_cups())[0]


@pytest.fixture
async def nothing_placed(market: Market) -> AsyncGenerator[None]:
    count = "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM sealed_buyers) AS n"
    before = (await market.rows("order", count))[0]["n"]
    yield
    assert (await market.rows("order", count))[0]["n"] == before


def replaced(order: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """``order`` with the value at a dotted path replaced, or added."""
    changed = copy.deepcopy(order)
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = changed
    for part in way:
        place = place[part]
    place[last] = value
    return changed


QUANTITIES: tuple[Any, ...] = (0, -1, 1_000_001, 10**30, 1.0, 1.5, "1", True, None, [], "one")
FIELDS: tuple[tuple[str, Any, str], ...] = (
    *(("lines.0.quantity", value, "lines.0.quantity") for value in QUANTITIES),
    ("lines", [], "lines"),
    ("lines", "many", "lines"),
    ("lines", None, "lines"),
    ("lines.0", 7, "lines.0"),
    ("lines.0.sku", "", "lines.0.sku"),
    ("lines.0.sku", 7, "lines.0.sku"),
    ("lines.0.sku", NUL, "lines.0.sku"),
    ("lines.0.sku", "x" * 65, "lines.0.sku"),
    ("lines.0.sku", "no-such-thing", "lines.0.sku"),
    ("lines.0.unit_price", "-0.01", "lines.0.unit_price"),
    ("lines.0.unit_price", "NaN", "lines.0.unit_price"),
    ("lines.0.unit_price", "1e400", "lines.0.unit_price"),
    ("lines.0.unit_price", "1.0000001", "lines.0.unit_price"),
    ("lines.0.colour", "red", "lines.0.colour"),
    ("currency", "XXX", "currency"),
    ("currency", "gbp", "currency"),
    ("currency", 826, "currency"),
    ("channel", "Web Shop", "channel"),
    ("channel", "x" * 64, "channel"),
    ("channel", NUL, "channel"),
    ("external_reference", "", "external_reference"),
    ("external_reference", "x" * 201, "external_reference"),
    ("external_reference", NUL, "external_reference"),
    ("external_reference", 7, "external_reference"),
    ("customer_id", "somebody", "customer_id"),
    ("points", -1, "points"),
    ("points", 5, "points"),
    ("points", 1.5, "points"),
    ("points", "5", "points"),
    ("points", 10**30, "points"),
    ("coupon", "", "coupon"),
    ("coupon", NUL, "coupon"),
    ("expected_total", "-1", "expected_total"),
    ("expected_total", "much", "expected_total"),
    ("expected_total", "24.901", "expected_total"),
    ("expected_total", "1e999999999", "expected_total"),
    ("note", NUL, "note"),
    ("note", "x" * 2001, "note"),
    ("note", {"text": "x"}, "note"),
    ("placed_at", "yesterday", "placed_at"),
    ("placed_at", "2026-01-01T00:00:00", "placed_at"),
    ("placed_at", "9999-12-31T23:59:59-14:00", "placed_at"),
    ("placed_at", "0001-01-01T00:00:00+14:00", "placed_at"),
    ("placed_at", 1e300, "placed_at"),
    ("buyer.email", "nobody", "buyer.email"),
    ("buyer.nickname", "Bob", "buyer.nickname"),
    ("recipient", None, "recipient"),
    ("recipient.country", "England", "recipient.country"),
    ("recipient.name", "", "recipient.name"),
    ("recipient.postal_code", "\0\0", "recipient.postal_code"),
    ("payment", None, "payment"),
    ("payment", {"method": "cash"}, "payment"),
    ("payment.token", NUL, "payment.card.token"),
    ("payment.cvv", "123", "payment.card.cvv"),
    ("colour", "red", "colour"),
)


@pytest.mark.usefixtures("nothing_placed")
async def test_an_order_with_a_bad_field_is_refused_by_its_name(market: Market, lamp: str):
    for path, value, field in FIELDS:
        order = replaced(market.order((lamp, 1)), path, value)
        answer = await market.ask("order", "POST", "/orders", json=order)
        assert answer.status_code == 422, f"{path} = {value!r:.60}: {answer.status_code} {answer.text}"
        refused(answer, 422, field)
    for missing in ("channel", "external_reference", "currency", "recipient", "lines", "payment"):
        order = market.order((lamp, 1))
        del order[missing]
        refused(await market.ask("order", "POST", "/orders", json=order), 422, missing)


@pytest.mark.usefixtures("nothing_placed")
async def test_a_body_that_is_no_order_at_all_is_refused(market: Market, lamp: str):
    whole = orjson.dumps(market.order((lamp, 1), note="é"))
    bodies: Mapping[bytes, int] = {
        b"": 422,
        b"null": 422,
        b"[]": 422,
        b'"order"': 422,
        b"{": 400,
        whole[:-1]: 400,
        whole + b"}": 400,
        b"\xff\xfe\xfd": 400,
        whole.decode().encode("latin-1"): 400,
        b"[" * 100_000: 400,
        b'{"a":' * 50_000: 400,
        whole.replace(b'"quantity":1', b'"quantity":NaN'): 422,
        whole.replace(b'"quantity":1', b'"quantity":1e400'): 422,
        whole.replace(b'"quantity":1', b'"quantity":-Infinity'): 422,
        whole.replace(b'"quantity":1', b'"quantity":' + b"9" * 5000): 400,
        whole.replace(b'"note":', b'"expected_total":NaN,"note":'): 422,
        whole.replace(b'"note":', b'"expected_total":1e400,"note":'): 422,
        whole.replace(b'"note":"', b'"note":"\\ud800'): 422,
    }
    for body, status in bodies.items():
        headers = {"Content-Type": "application/json"}
        answer = await market.ask("order", "POST", "/orders", content=body, headers=headers)
        assert answer.status_code == status, f"{body[:60]}: {answer.status_code} {answer.text}"
        refused(answer, status)


@pytest.mark.usefixtures("nothing_placed")
async def test_an_order_of_too_many_lines_or_bytes_is_refused(market: Market, lamp: str):
    refused(await market.ask("order", "POST", "/orders", json=market.order(*[(lamp, 1)] * 2001)), 422, "lines")

    for announced in (True, False):
        answer = await asyncio.to_thread(fifty_megabytes, market, announced=announced)
        assert answer.startswith(b"HTTP/1.1 413 "), answer
        assert PROBLEM.encode() in answer
    assert (await market.ask("order", "GET", "/orders?limit=1")).status_code == 200


def fifty_megabytes(market: Market, *, announced: bool) -> bytes:
    """Send them by hand: the answer comes long before the end, and most clients would not look for it by then."""
    url = urlsplit(market.platform.stack.url("order"))
    size = "Content-Length: 52428800" if announced else "Transfer-Encoding: chunked"
    authorization = market.platform.headers()["Authorization"]
    head = f"POST /orders HTTP/1.1\r\nHost: isthmus\r\nAuthorization: {authorization}\r\n{size}\r\n"
    piece = b"x" * 1_048_576
    with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        with contextlib.suppress(OSError):  # the service hangs up at some point
            for _ in range(50):
                connection.sendall(piece if announced else b"100000\r\n" + piece + b"\r\n")
        return connection.recv(4096)


async def test_an_order_of_two_thousand_lines_is_accepted(market: Market, lamp: str):
    goods = market.name("screw")
    await market.stock({goods: ("0.01", 5000)})
    order = await market.buy(*[(goods, 1), (goods, 2)] * 1000)
    assert (order["state"], order["total"], len(order["lines"])) == ("confirmed", "30.00", 2000)
    assert await market.available(goods) == 2000


@pytest.mark.usefixtures("nothing_placed")
async def test_who_may_not_is_told_why(market: Market, lamp: str):
    order = market.order((lamp, 1))
    stack = market.platform.stack

    async def send(authorization: str | None, body: Any = None) -> httpx2.Response:
        async with httpx2.AsyncClient() as client:
            headers = {"Authorization": authorization} if authorization else {}
            return await client.post(f"{stack.url('order')}/orders", json=body or order, headers=headers)

    good = stack.token("demo")
    head, claims, signature = good.split(".")
    forged = orjson.loads(base64.urlsafe_b64decode(claims + "==")) | {"sub": "root"}
    forged_claims = base64.urlsafe_b64encode(orjson.dumps(forged)).decode().rstrip("=")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    nobody = (
        None, "Bearer", "Bearer garbage", "Bearer a.b.c", f"Basic {good}", f"Bearer {good}x",
        f"Bearer {head}.{forged_claims}.{signature}", f"Bearer {none}.{forged_claims}.",
        f"Bearer {await expired(market)}", f"Bearer {await of_another_audience(market)}",
    )  # fmt: skip
    for authorization in nobody:
        answer = await send(authorization)
        refused(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    answer = await send(f"Bearer {stack.token('support')}")
    refused(answer, 403)
    assert "orders:write" in answer.json()["detail"]
    shop = f"Bearer {stack.token('shop')}"  # may sell, but not at its own prices, nor in another time
    for body, field in (
        (replaced(order, "lines.0.unit_price", "0.01"), "lines.unit_price"),
        (order | {"placed_at": "2010-12-01T08:26:00Z"}, "placed_at"),
        (order | {"payment": {"method": "prepaid"}}, "payment.method"),
    ):
        refused(await send(shop, body), 403, field)


async def expired(market: Market) -> str:
    return await token(market, "-60")


async def of_another_audience(market: Market) -> str:
    """Signed with the issuer's own key, for somebody else."""
    directory = market.platform.stack.directory
    key = ECKey.import_key(orjson.loads((directory / "issuer.key.json").read_bytes()))
    good = market.platform.stack.token("demo").split(".")[1]
    claims = orjson.loads(base64.urlsafe_b64decode(good + "==")) | {"aud": "another-platform"}
    return jwt.encode({"alg": "ES256", "kid": key.thumbprint()}, claims, key, algorithms=["ES256"])


async def token(market: Market, lifetime: str) -> str:
    stack = market.platform.stack
    form = {
        "grant_type": "client_credentials", "client_id": "demo", "client_secret": stack.secrets["client_demo"],
        "lifetime": lifetime,
    }  # fmt: skip
    async with httpx2.AsyncClient() as client:
        return (await client.post(f"{stack.url('issuer')}/token", data=form)).json()["access_token"]


ELSEWHERE: tuple[tuple[str, str, str, int], ...] = (
    ("order", "GET", "/nowhere", 404),
    ("order", "GET", "/orders/", 404),
    ("order", "DELETE", "/orders", 405),
    ("order", "PATCH", "/orders/01900000-0000-7000-8000-000000000000", 405),
    ("order", "GET", "/orders/01900000-0000-7000-8000-000000000000", 404),
    ("order", "GET", "/orders/7", 422),
    ("order", "GET", "/orders?limit=0", 422),
    ("order", "GET", "/orders?limit=501", 422),
    ("order", "GET", "/orders?limit=ten", 422),
    ("order", "GET", "/orders?customer_id=7", 422),
    ("order", "GET", "/orders?state=%00", 422),
    ("order", "GET", "/orders?external_reference=%00", 422),
    ("order", "GET", "/openapi.json", 404),
    ("inventory", "GET", "/items/none", 404),
    ("inventory", "GET", "/items/%00", 422),
    ("inventory", "GET", "/stock/%00/movements", 422),
    ("inventory", "GET", "/stock?sku=%00", 422),
    ("inventory", "GET", "/availability", 422),
    ("pricing", "GET", "/prices", 422),
    ("pricing", "GET", "/coupons/none", 404),
    ("pricing", "GET", "/orders/7/price", 422),
    ("customer", "GET", "/customers", 422),
    ("customer", "GET", "/customers/7", 422),
    ("customer", "GET", "/recipients/01900000-0000-7000-8000-000000000000", 404),
    ("notify", "GET", "/care?order_id=7", 422),
)


async def test_unknown_paths_methods_and_parameters_are_problems_too(market: Market):
    for service, method, path, status in ELSEWHERE:
        answer = await market.ask(service, method, path)
        assert answer.status_code == status, f"{method} {service}{path}: {answer.status_code} {answer.text}"
        refused(answer, status)


LISTS = (
    ("order", "/orders"), ("inventory", "/items"), ("inventory", "/stock"), ("inventory", "/stock/{lamp}/movements"),
    ("pricing", "/prices?sku={lamp}"), ("pricing", "/coupons"), ("notify", "/care"),
    ("customer", "/customers?name=bob"),
)  # fmt: skip
CURSORS: tuple[Any, ...] = (
    ["a\0"], ["abc"], [None], [[1]], [{}], [10**18 * 10], [-1], [1.5], [True], [], ["a", "b"], ["a", None],
    ["a", "9999-12-31T23:59:59-14:00"], ["a", "0001-01-01T00:00:00+14:00"], {"a": 1}, None,
)  # fmt: skip


async def test_a_cursor_that_was_not_given_out_breaks_nothing(market: Market, lamp: str):
    texts = [base64.urlsafe_b64encode(orjson.dumps(one)).decode().rstrip("=") for one in CURSORS]
    for service, path in LISTS:
        for cursor in (*texts, "", "%", "x", "é", "A" * 5000):
            place = path.format(lamp=lamp)
            answer = await market.ask(service, "GET", f"{place}{'&' if '?' in place else '?'}cursor={quote(cursor)}")
            assert answer.status_code in (200, 422), f"{service}{place} {cursor}: {answer.status_code} {answer.text}"


COMMANDS: tuple[tuple[str, str, str, Any, str | None], ...] = (
    ("inventory", "PUT", "/warehouses/w", {"name": NUL, "country": "GB"}, "name"),
    ("inventory", "PUT", "/warehouses/w", {"name": "W", "country": "England"}, "country"),
    ("inventory", "PUT", "/warehouses/%00", {"name": "W", "country": "GB"}, None),
    ("inventory", "POST", "/items", {"items": [{"sku": NUL, "name": "x"}]}, "items.0.sku"),
    ("inventory", "POST", "/items", {"items": [{"sku": "x", "name": NUL}]}, "items.0.name"),
    ("inventory", "POST", "/items", {"items": [{"sku": "a/b", "name": "x"}]}, "items.0.sku"),
    ("inventory", "POST", "/items", {"items": [{"sku": "x", "name": "x", "weight": -1}]}, "items.0.weight"),
    ("inventory", "POST", "/items", {"items": [{"sku": "x", "name": "x"}] * 2}, "body"),
    *(
        ("inventory", "POST", "/stock/receipts", {"lines": [{"sku": "LAMP", "warehouse": "leeds", "quantity": value}]},
         "lines.0.quantity")
        for value in (0, -1, 1.5, "7", True, 10**30)
    ),
    ("inventory", "POST", "/stock/receipts", {"lines": [{"sku": "?", "warehouse": "leeds", "quantity": 1}]},
     "lines.0.sku"),
    ("inventory", "POST", "/stock/receipts", {"lines": [{"sku": "LAMP", "warehouse": "?", "quantity": 1}]},
     "lines.0.warehouse"),
    ("inventory", "POST", "/stock/receipts",
     {"lines": [{"sku": "LAMP", "warehouse": "leeds", "quantity": 1}], "occurred_at": "0001-01-01T00:00:00+14:00"},
     "occurred_at"),
    ("inventory", "POST", "/stock/adjustments",
     {"lines": [{"sku": "LAMP", "warehouse": "leeds", "quantity": 0, "reason": "x"}]}, "lines.0"),
    ("inventory", "POST", "/stock/adjustments",
     {"lines": [{"sku": "LAMP", "warehouse": "leeds", "quantity": 1, "reason": NUL}]}, "lines.0.reason"),
    ("pricing", "POST", "/prices", {"price_list": "main", "lines": [{"sku": "LAMP", "unit_price": "-1"}]},
     "lines.0.unit_price"),
    ("pricing", "POST", "/prices", {"price_list": "main", "lines": [{"sku": "LAMP", "unit_price": "1e400"}]},
     "lines.0.unit_price"),
    ("pricing", "POST", "/prices", {"price_list": "main", "lines": [{"sku": NUL, "unit_price": "1"}]}, "lines.0.sku"),
    ("pricing", "POST", "/quotes", {"currency": "XXX", "country": "GB", "lines": [{"sku": "LAMP", "quantity": 1}]},
     "currency"),
    ("pricing", "PUT", "/coupons/c", {"percent": "101"}, "percent"),
    ("pricing", "PUT", "/coupons/c", {"percent": "10", "amount": "1"}, "body"),
    ("customer", "POST", "/customers", {"email": "nobody"}, "email"),
    ("customer", "POST", "/customers", {"email": "a@b.c", "name": NUL}, "name"),
    ("customer", "POST", "/customers", {"email": "a@b.c", "occurred_at": "9999-12-31T23:59:59-14:00"}, "occurred_at"),
    ("customer", "PUT", "/customers/01900000-0000-7000-8000-000000000000/tier", {"tier": NUL}, "tier"),
    ("customer", "POST", "/customers/01900000-0000-7000-8000-000000000000/points", {"points": 1.5, "reason": "x"},
     "points"),
    ("order", "POST", "/orders/01900000-0000-7000-8000-000000000000/cancellations", {"reason": "Ouch!"}, "reason"),
    ("order", "POST", "/orders/01900000-0000-7000-8000-000000000000/cancellations",
     {"lines": [{"line": 1, "quantity": 1.0}]}, "lines.0.quantity"),
    ("order", "POST", "/orders/01900000-0000-7000-8000-000000000000/cancellations",
     {"occurred_at": "0001-01-01T00:00:00+14:00"}, "occurred_at"),
)  # fmt: skip


async def test_a_command_with_a_bad_field_is_refused_by_its_name(market: Market, lamp: str):
    for service, method, path, body, field in COMMANDS:
        named = json.loads(json.dumps(body).replace('"LAMP"', json.dumps(lamp)))
        answer = await market.ask(service, method, path, json=named, key=market.name("key"))
        assert answer.status_code == 422, f"{method} {service}{path} {body!r:.80}: {answer.status_code} {answer.text}"
        refused(answer, 422, field)
    for path in ("/stock/receipts", "/stock/adjustments"):  # such commands need a key
        refused(await market.ask("inventory", "POST", path, json={"lines": []}), 422)
    assert await market.available(lamp) == 100


async def test_a_forged_notice_of_the_provider_is_refused(market: Market):
    url = f"{market.platform.stack.url('order')}/webhooks/payments"
    signed = {"webhook-id": "x", "webhook-timestamp": "1700000000", "webhook-signature": "v1,AAAA"}
    async with httpx2.AsyncClient() as client:
        for headers in ({}, signed, signed | {"webhook-timestamp": "1e400"}, signed | {"webhook-signature": "v1,é"}):
            sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            for body in (b"", b"{}", b"\xff"):
                refused(await client.post(url, content=body, headers=sent), 401)


async def test_a_bulk_file_with_bad_rows_is_taken_row_by_row(market: Market, lamp: str):
    good = [market.order((lamp, 1)) for _ in range(5)]
    rows = [
        orjson.dumps(good[0]),
        b"{",
        orjson.dumps(good[1]),
        orjson.dumps(replaced(good[2], "lines.0.quantity", 0)),
        b"",
        orjson.dumps(replaced(good[2], "lines.0.sku", "no-such-thing")),
        orjson.dumps(replaced(good[2], "external_reference", NUL)),
        orjson.dumps(good[3]),
        orjson.dumps(good[3]),
        orjson.dumps(good[3] | {"note": "another"}),
    ]
    body = b"\n".join(rows)

    async def send(on_error: str) -> list[dict[str, Any]]:
        answer = await market.ask("order", "POST", f"/orders/bulk?on_error={on_error}", content=body)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
        return [orjson.loads(line) for line in answer.content.splitlines()]

    stopped = await send("stop")
    assert [(report["row"], report["status"]) for report in stopped][:2] == [(1, 201), (2, 400)]
    assert {report["status"] for report in stopped[2:]} <= {400, 422, 424}
    assert await placed(market, good) == 1
    skipped = await send("skip")
    assert [(report["row"], report["status"]) for report in skipped] == [
        (1, 200), (2, 400), (3, 201), (4, 422), (6, 422), (7, 422), (8, 201), (9, 200), (10, 409),
    ]  # fmt: skip
    assert [report["errors"][0]["field"] for report in skipped if report["status"] == 422] == [
        "lines.0.quantity", "lines.0.sku", "external_reference",
    ]  # fmt: skip
    assert skipped[6]["order_id"] == skipped[7]["order_id"]
    assert await placed(market, good) == 3
    again = await send("skip")
    assert [report["status"] for report in again if report["status"] < 300] == [200] * 4
    assert (await market.outcome(skipped[2]["order_id"]))["state"] == "confirmed"


async def placed(market: Market, orders: list[dict[str, Any]]) -> int:
    references = [order["external_reference"] for order in orders]
    return len(await market.rows("order", "SELECT FROM orders WHERE external_reference = ANY($1)", references))


async def test_a_bulk_file_may_be_longer_than_any_single_body(market: Market, lamp: str):
    note = "x" * 2000
    orders = [market.order((lamp, 10**6), note=note, channel="file") for _ in range(1200)]  # nobody has a million
    body = b"\n".join(orjson.dumps(order) for order in orders)
    assert len(body) > 2 * 1_048_576
    answer = await market.ask("order", "POST", "/orders/bulk", content=body)
    reports = [orjson.loads(line) for line in answer.content.splitlines()]
    assert [report["status"] for report in reports] == [201] * 1200
    assert [report["row"] for report in reports] == list(range(1, 1201))

    async def all_refused() -> bool:
        query = "SELECT count(*) AS n FROM orders WHERE channel = 'file' AND reason = 'stock'"
        return (await market.rows("order", query))[0]["n"] == 1200

    await until("all are refused", all_refused, seconds=30)
