"""The ``isthmus`` command line, run as an operator runs it, on the running platform."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.flows.market import Market, until

ROOT = Path(__file__).resolve().parents[2]


async def isthmus(
    market: Market, *arguments: str, code: int = 0, environment: Mapping[str, str] | None = None
) -> str:  # fmt: skip
    """What it prints (its error, where that is expected), given how it must end; piped, so never coloured.

    It is told of the stack, or else what the environment says of the platform.
    """
    stack = ["--stack", str(market.platform.stack.directory)] if environment is None else []
    known = {name: value for name, value in os.environ.items() if not name.startswith(("ISTHMUS_", "COLUMNS"))}
    run = await asyncio.create_subprocess_exec(
        str(ROOT / "isthmus"), *stack, *arguments, env={**known, **(environment or {})}, cwd="/",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, error = await asyncio.wait_for(run.communicate(), 60)
    assert run.returncode == code, f"{out.decode()}\n{error.decode()}"
    return (out if code == 0 else error).decode()


async def parsed(market: Market, *arguments: str) -> Any:
    return orjson.loads(await isthmus(market, *arguments, "--json"))


@pytest.fixture(scope="module")
async def bought(market: Market) -> dict[str, Any]:
    """A confirmed order of two lamps and a cup."""
    lamp, cup = await market.lamps_and_cups()
    return await market.buy((lamp, 2), (cup, 1))


async def test_an_order_shows_what_happened_in_every_service_and_why(market: Market, bought: dict[str, Any]):
    text = await isthmus(market, "order", "show", bought["order_id"])
    assert max(len(line) for line in text.splitlines()) <= 100
    lines = [line.split() for line in text.splitlines()]
    held = next(line for line in lines if "StockHeld" in line)
    assert held[-4:] == ["StockHeld", "inventory", "OrderPlaced,", "order"]
    asked = next(line for line in lines if "PaymentRequested" in line)
    assert asked[-2:] in (
        ["StockHeld,", "inventory"], ["OrderPriced,", "pricing"], ["BuyerIdentified,", "customer"],
    )  # fmt: skip
    assert bought["external_reference"] in text
    assert "56.30 GBP" in text


async def test_a_closed_order_shows_its_parcel_and_what_left_the_warehouse_with_it(
    market: Market, bought: dict[str, Any]
):  # fmt: skip
    await market.booked(bought["order_id"])
    for status in ("collected", "delivered"):
        await market.move(bought["order_id"], status)
    await market.ended(bought["order_id"], "closed")
    lines = [line.split() for line in (await isthmus(market, "order", "show", bought["order_id"])).splitlines()]
    issued = next(line for line in lines if "StockIssued" in line)
    assert issued[-4:] == ["StockIssued", "inventory", "ParcelShipped,", "order"]
    assert any(line[:2] == ["1", "leeds"] and "delivered" in line for line in lines)
    told = await parsed(market, "stock", bought["lines"][0]["sku"])
    assert [(one["kind"], one["quantity"]) for one in told["movements"]] == [("issue", -2), ("receipt", 100)]


async def test_an_order_is_found_by_its_reference_and_told_to_programs(market: Market, bought: dict[str, Any]):
    told = await parsed(market, "order", "show", bought["external_reference"])
    assert (told["order"]["order_id"], told["kafka"]) == (bought["order_id"], True)
    types = [one["type"] for one in told["timeline"]]
    assert {"BuyerSealed", "StockHeld", "OrderPriced", "BuyerIdentified", "OrderConfirmed"} <= set(types)
    assert len(types) == len({one["id"] for one in told["timeline"]})
    times = [one["after_ms"] for one in told["timeline"]]
    assert times == sorted(times)


async def test_without_kafka_causes_still_have_names(market: Market, bought: dict[str, Any]):
    told = await parsed(market, "order", "show", bought["order_id"], "--no-kafka")
    (asked,) = [one for one in told["timeline"] if one["type"] == "PaymentRequested"]
    assert asked["cause"]["service"] in ("inventory", "pricing", "customer")
    assert not told["kafka"]


async def test_stock_shows_levels_and_the_last_movements_first(market: Market):
    lamp, _ = await market.lamps_and_cups(lamps=7)
    body = {"lines": [{"sku": lamp, "warehouse": "leeds", "quantity": -2, "reason": "broken"}]}
    await market.platform.ask("inventory", "POST", "/stock/adjustments", json=body, key=market.name("broken"))
    told = await parsed(market, "stock", lamp)
    assert (told["available"], [one["quantity"] for one in told["movements"]]) == (5, [-2, 7])
    assert [one["quantity"] for one in (await parsed(market, "stock", lamp, "-n", "1"))["movements"]] == [-2]
    assert f"{lamp}: 5 can be promised" in await isthmus(market, "stock", lamp)


async def test_the_books_balance_and_show_what_an_order_brought(market: Market, bought: dict[str, Any]):
    (pounds,) = (await parsed(market, "ledger", "trial-balance", "--currency", "GBP"))["currencies"]
    assert pounds["debit"] == pounds["credit"]
    assert "account" in await isthmus(market, "ledger", "trial-balance")
    entries = await parsed(market, "ledger", "journal", "--order", bought["external_reference"])
    assert {one["order_id"] for one in entries} == {bought["order_id"]}
    head, *rows = (await isthmus(market, "ledger", "journal", "--order", bought["order_id"], "--csv")).splitlines()
    assert head.startswith("transaction_id,")
    assert len(rows) == len(entries)
    assert "No entry" in await isthmus(market, "ledger", "journal", "--until", "1990-01-01")


async def test_topics_count_what_is_in_them(market: Market, bought: dict[str, Any]):
    del bought  # has left messages
    told = {one["topic"]: one for one in await parsed(market, "topics")}
    orders = told["isthmus.order.order.v1"]
    assert orders["messages"] > 0
    assert (orders["partitions"], orders["retention_ms"], orders["there"]) == (12, -1, True)
    assert told["isthmus.order.intake.v1"]["retention_ms"] == 7 * 24 * 3600 * 1000
    assert told["isthmus.pricing.demand.v1"]["retention_ms"] == 30 * 24 * 3600 * 1000
    assert "isthmus.order.order.v1" in await isthmus(market, "topics")


async def test_stack_and_json_are_understood_before_the_command_and_after_it(market: Market):
    stack = f"--stack={market.platform.stack.directory}"
    other = {"ISTHMUS_TOKEN": "of another platform", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
    told = [
        orjson.loads(await isthmus(market, *words, environment=other))
        for words in ((stack, "topics", "--json"), ("topics", "--json", stack), ("--json", stack, "topics"))
    ]
    assert {one["topic"] for one in told[0]} == {one["topic"] for one in told[1]} == {one["topic"] for one in told[2]}


async def test_lag_grows_while_a_consumer_is_away_and_is_gone_when_it_is_back(market: Market):
    async def behind() -> int:
        (one,) = [
            one
            for one in await parsed(market, "lag")
            if (one["group"], one["topic"]) == ("isthmus.inventory.hold_stock", "isthmus.order.order.v1")
        ]
        return one["lag"]

    async def none_is_behind() -> bool:
        return await behind() == 0

    lamp, _ = await market.lamps_and_cups()
    await until("inventory has read all", none_is_behind, 30)
    await asyncio.to_thread(market.platform.stack.stop, "inventory")
    try:
        placed = [await market.place(market.order((lamp, 1))) for _ in range(3)]

        async def some_are_behind() -> bool:
            return await behind() >= 3

        await until("three orders wait for inventory", some_are_behind, 30)
    finally:
        await market.start(["inventory"])
    for order_id in placed:
        await market.outcome(order_id, 40)
    await until("inventory has read all again", none_is_behind, 30)


async def test_a_refusal_is_one_line_and_a_wrong_word_is_usage(market: Market):
    nobody = await isthmus(market, "order", "show", "no-such-order", code=1)
    assert nobody == "isthmus: no order has the id or the external reference no-such-order\n"
    assert await isthmus(market, "stock", "no-such-sku", code=1) == (
        "isthmus: inventory: 404 Not found; no item no-such-sku\n"
    )
    assert "No such command" in await isthmus(market, "sell", code=2)
    assert "is no date" in await isthmus(market, "ledger", "journal", "--from", "yesterday", code=2)


async def test_a_platform_of_the_environment_is_asked_with_its_own_token(market: Market, bought: dict[str, Any]):
    stack = market.platform.stack
    named = {"ISTHMUS_ORDER_URL": stack.url("order"), "KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap_servers}
    show = ("order", "show", bought["order_id"])

    async def shown(more: Mapping[str, str], code: int = 0) -> str:
        return await isthmus(market, *show, code=code, environment={**named, **more})

    assert "StockHeld" in await shown({"ISTHMUS_TOKEN": stack.token("support")})
    client = {
        "ISTHMUS_AUTH_TOKEN_URL": stack.url("issuer") + "/token", "ISTHMUS_CLIENT_ID": "support",
        "ISTHMUS_CLIENT_SECRET": stack.secrets["client_support"],
    }  # fmt: skip
    assert "StockHeld" in await shown(client)
    assert "no token from" in await shown(client | {"ISTHMUS_CLIENT_SECRET": "x"}, code=1)
    assert "ISTHMUS_TOKEN is not set" in await shown({}, code=1)
    away = await shown({"ISTHMUS_ORDER_URL": "http://127.0.0.1:9", "ISTHMUS_TOKEN": "x"}, code=1)
    assert away.startswith("isthmus: the order service does not answer at http://127.0.0.1:9 ")
    assert away.count("\n") == 1
    shop = {**named, "ISTHMUS_TOKEN": stack.token("shop")}
    forbidden = await isthmus(market, "ledger", "trial-balance", code=1, environment=shop)
    assert forbidden.startswith("isthmus: order: 403 ")


async def test_an_order_is_shown_while_kafka_is_away(market: Market, bought: dict[str, Any]):
    stack = market.platform.stack
    named = {"ISTHMUS_ORDER_URL": stack.url("order"), "ISTHMUS_TOKEN": stack.token(), "KAFKA_BOOTSTRAP_SERVERS": ""}
    text = await isthmus(market, "order", "show", bought["order_id"], environment=named)
    assert "OrderConfirmed" in text
    assert "BuyerSealed" not in text
