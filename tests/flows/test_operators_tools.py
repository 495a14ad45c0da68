"""What an operator does with ``isthmus`` when a message could not be applied, or an order stands still."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from shared.kafka import Producer
from shared.topics import RETIRED_KEYS
from tests.flows.market import Market, journey, until

ROOT = Path(__file__).resolve().parents[2]


async def isthmus(market: Market, *arguments: str, code: int = 0) -> str:
    """What it prints: its error, where that is expected."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("ISTHMUS_", "COLUMNS"))}
    run = await asyncio.create_subprocess_exec(
        str(ROOT / "isthmus"), "--stack", str(market.platform.stack.directory), *arguments, env=known, cwd="/",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, error = await asyncio.wait_for(run.communicate(), 60)
    assert run.returncode == code, f"{out.decode()}\n{error.decode()}"
    return (out if code == 0 else error).decode()


async def letter_of(market: Market, service: str, key: str) -> dict[str, Any]:
    """The newest dead letter with this key, once it is there."""

    async def there() -> Any:
        listed = orjson.loads(await isthmus(market, "dlq", "list", "--service", service, "--json"))
        return next((one for one in listed if one["key"] == key), None)

    return await until(f"{service} has put {key} aside", there, 20)


async def test_a_poisoned_message_is_found_and_refused_again(market: Market):
    poison = market.name("poison")
    producer = Producer(market.platform.stack.bootstrap_servers)
    await producer.start()
    try:
        await (await producer.send_one(RETIRED_KEYS.name, poison, b"\xff no event", [("ce_id", b"no id")]))
    finally:
        await producer.stop()
    letter = await letter_of(market, "customer", poison)
    assert (letter["state"], letter["topic"], letter["event_id"]) == ("waiting", RETIRED_KEYS.name, None)
    assert "header 'ce_type' is missing" in letter["reason"]
    everywhere = await isthmus(market, "dlq", "list")
    assert any(line.split()[:2] == ["customer", str(letter["offset"])] for line in everywhere.splitlines())
    shown = await isthmus(market, "dlq", "show", "customer", str(letter["offset"]))
    assert poison in shown
    assert "in base64" in shown
    refused = await isthmus(market, "dlq", "redrive", "customer", str(letter["offset"]), code=1)
    assert refused == "isthmus: customer: 409 Cannot be redriven; header 'ce_type' is missing\n"
    assert (await isthmus(market, "dlq", "redrive", "customer", "99999", code=1)).startswith("isthmus: customer: 404 ")


async def test_an_order_that_could_not_be_priced_is_confirmed_once_its_price_is_mended(market: Market):
    lamp, _ = await market.lamps_and_cups()
    await market.rows("pricing", "UPDATE list_prices SET unit_price = 'NaN' WHERE sku = $1", lamp)
    order_id = await market.place(market.order((lamp, 1)))
    patience = "UPDATE orders SET deadline_at = now() + interval '5 minutes' WHERE order_id = $1"
    await market.rows("order", patience, order_id)
    letter = await letter_of(market, "pricing", order_id)
    assert (letter["consumer"], letter["type"]) == ("price_orders", "isthmus.order.OrderPlaced.v1")
    offset = str(letter["offset"])
    assert "409 Cannot be redriven" in await isthmus(market, "dlq", "redrive", "pricing", offset, code=1)

    await market.rows("pricing", "UPDATE list_prices SET unit_price = '24.90' WHERE sku = $1", lamp)
    assert await isthmus(market, "dlq", "redrive", "pricing", offset) == "Applied.\n"
    order = await market.outcome(order_id)
    assert (order["state"], order["total"]) == ("confirmed", "24.90")
    assert await isthmus(market, "dlq", "redrive", "pricing", offset) == "It was applied already.\n"
    assert journey(await market.look(order_id)).count("PaymentRequested") == 1
    assert (await letter_of(market, "pricing", order_id))["redriven"]["by"] == "demo"
    report = orjson.loads(
        await isthmus(market, "dlq", "redrive", "pricing", "--all", "--consumer", "price_orders", "--json")
    )
    assert (report["applied"], report["failed"]) == (0, 0)


async def test_outboxes_are_empty_and_each_has_its_relay(market: Market):
    async def quiet() -> Any:
        shown = orjson.loads(await isthmus(market, "outbox", "status", "--json"))
        return shown if not any(one["rows"] for one in shown) else None

    shown = await until("all outboxes are empty", quiet, 20)
    assert {one["service"] for one in shown} == {"order", "inventory", "customer", "pricing", "notify"}
    assert all(one["relay"]["active"] and one["relay"]["blocked"] == [] for one in shown)
    assert "order-0" in await isthmus(market, "outbox", "status")


async def test_a_parcel_that_waits_is_asked_about_now_and_a_stuck_order_is_cancelled(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order = await market.buy((lamp, 1))
    order_id = order["order_id"]
    await market.booked(order_id)
    put_off = "UPDATE parcels SET due_at = now() + interval '1 hour' WHERE order_id = $1"
    await market.rows("order", put_off, order_id)
    assert "parcel 1, booked: asked now" in await isthmus(market, "process", "retry", order["external_reference"])

    async def asked() -> Any:
        query = "SELECT FROM parcels WHERE order_id = $1 AND attempts > 0 AND due_at < now() + interval '50 minutes'"
        return await market.rows("order", query, order_id)

    await until("the carrier was asked", asked)
    await market.rows(
        "order", "UPDATE parcels SET due_at = now() + interval '1 hour', attempts = 9, state = 'recalling' "
        "WHERE order_id = $1", order_id,
    )  # fmt: skip
    (stuck,) = [
        one for one in orjson.loads(await isthmus(market, "process", "stuck", "--json")) if one["order_id"] == order_id
    ]
    assert (stuck["what"], stuck["attempts"]) == ("parcel", 9)
    assert "the carrier's word" in " ".join((await isthmus(market, "process", "stuck")).split())
    await market.rows(
        "order", "UPDATE parcels SET state = 'booked', attempts = 0, due_at = now() + interval '1 minute' "
        "WHERE order_id = $1", order_id,
    )  # fmt: skip
    text = await isthmus(market, "process", "cancel", order_id, "--reason", "stuck")
    assert text == "The carrier is asked to give the parcels back; its word decides.\n"
    ended = await market.ended(order_id, "cancelled")
    assert ended["reason"] == "stuck"
    await market.gives_everything_back(order_id)
    assert await isthmus(market, "process", "cancel", order_id, "--reason", "stuck") == "The order is cancelled.\n"
    nobody = await isthmus(market, "process", "retry", str(uuid4()), code=1)
    assert nobody.startswith("isthmus: order: 404 ")
