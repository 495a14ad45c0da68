"""Tables are made to differ behind the services' backs: it is seen, shown, mended through events, and gone."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

import pytest

from deploy.local.supervisor import ROOT
from tests.flows.market import Market, journey, until

QUICK = {
    "ISTHMUS_RECONCILE_SECONDS": "0.3", "ISTHMUS_RECONCILE_REST_SECONDS": "1.5", "ISTHMUS_RECONCILE_PASS_SECONDS": "0",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
async def quick(market: Market) -> AsyncGenerator[None]:
    """A reconciler that does not wait for long."""
    await market.start(["order"], order=QUICK)
    yield
    await market.start(["order"])


async def on_the_command_line(market: Market) -> str:
    """What ``isthmus drift`` prints of all that there was."""
    directory = str(market.platform.stack.directory)
    command = (sys.executable, "-m", "shared.cli", "--stack", directory, "drift", "--closed")
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, cwd=ROOT)
    out, _ = await process.communicate()
    return out.decode()


async def drift(market: Market, kind: str) -> float:
    """What the metric says."""
    return await metric(market, f'isthmus_drift{{kind="{kind}"}}')


async def repaired(market: Market, kind: str) -> float:
    return await metric(market, f'isthmus_drift_repaired_total{{kind="{kind}"}}')


async def metric(market: Market, name: str) -> float:
    shown = (await market.ask("order", "GET", "/metrics")).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", shown, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def found(market: Market, subject: str) -> dict[str, Any]:
    """The one finding of this order or payment, once it is drift; it may be closed again."""

    async def there() -> Any:
        params = {"closed": "true", "limit": 500}
        answer = await market.platform.ask("order", "GET", "/admin/reconciliation", params=params)
        return next((one for one in answer.json()["findings"] if one["subject"] == subject), None)

    return await until(f"a finding of {subject}", there, 30)


async def closed(market: Market, subject: str) -> dict[str, Any]:
    async def gone() -> Any:
        one = await found(market, subject)
        return one if one["closed_at"] else None

    return await until(f"the drift of {subject} is gone", gone, 30)


async def mended(market: Market, kind: str, subject: str) -> dict[str, Any]:
    """The finding of this subject, when it is closed; meanwhile the metric has risen, and fallen again."""
    before = await repaired(market, kind)
    await found(market, subject)
    one = await closed(market, subject)
    assert (one["kind"], bool(one["repaired_at"])) == (kind, True)

    async def counted() -> bool:
        return await repaired(market, kind) > before or one["attempts"] > 0

    await until("the repair is counted", counted)

    async def fallen() -> bool:
        return await drift(market, kind) == 0

    await until("the metric has fallen", fallen)
    return one


async def lacks_nothing(market: Market) -> None:
    assert await market.rows("order", "SELECT FROM findings WHERE closed_at IS NULL AND confirmed_at IS NOT NULL") == []
    await market.holds_all_invariants()


async def test_stock_that_a_cancelled_order_holds_is_released(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 1)))
    await market.booked(order_id)
    await market.cancel(order_id)
    await market.ended(order_id, "cancelled")
    await market.gives_everything_back(order_id)
    assert await market.available(lamp) == 100
    await market.rows("inventory", "UPDATE stock SET reserved = reserved + 2 WHERE sku = $1", lamp)
    await market.rows("inventory", "INSERT INTO hold_lines VALUES ($1, $2, 'leeds', 2)", order_id, lamp)
    await market.rows("inventory", "UPDATE holds SET state = 'held' WHERE order_id = $1", order_id)

    async def risen() -> bool:
        return await drift(market, "stock") == 1

    await until("the metric rises", risen)
    one = await mended(market, "stock", order_id)
    assert (one["expected"], one["found"]) == ("none", f"{lamp} 2 in leeds")
    assert await market.available(lamp) == 100
    assert journey(await market.look(order_id)).count("OrderRestated") == 1
    shown = await on_the_command_line(market)
    assert "stock" in shown
    assert "gone" in shown
    assert "all orders" in shown
    await lacks_nothing(market)


async def test_a_missing_hold_is_made_again_and_the_salable_quantity_is_right(market: Market):
    lamp, cup = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 3), (cup, 1)))
    await market.booked(order_id)
    await market.rows("inventory", "UPDATE stock SET reserved = reserved - 3 WHERE sku = $1", lamp)
    await market.rows("inventory", "DELETE FROM hold_lines WHERE order_id = $1 AND sku = $2", order_id, lamp)
    assert await market.available(lamp) == 100
    await mended(market, "stock", order_id)
    assert await market.available(lamp) == 97
    await market.move(order_id, "collected")
    await market.move(order_id, "delivered")
    await market.ended(order_id, "closed")
    assert await market.available(lamp) == 97
    await lacks_nothing(market)


@pytest.mark.long
async def test_a_missing_hold_that_is_sold_already_stays_reported(market: Market):
    lamp = market.name("last-lamp")
    await market.stock({lamp: ("24.90", 1)})
    order_id = await market.place(market.order((lamp, 1)))
    await market.booked(order_id)
    await market.rows("inventory", "UPDATE stock SET reserved = 0 WHERE sku = $1", lamp)
    await market.rows("inventory", "DELETE FROM hold_lines WHERE order_id = $1", order_id)
    other = await market.place(market.order((lamp, 1)))
    await market.booked(other)
    await found(market, order_id)

    async def tried() -> bool:
        return (await found(market, order_id))["attempts"] >= 1

    await until("it was tried", tried)
    assert await market.available(lamp) == 0
    assert (await found(market, order_id))["closed_at"] is None
    # Somebody decides: another one is received, and the next try finds it.
    line = {"sku": lamp, "warehouse": "leeds", "quantity": 1, "unit_cost": "3.00", "currency": "GBP"}
    key = market.name("found")
    await market.platform.ask("inventory", "POST", "/stock/receipts", json={"lines": [line]}, key=key)
    await closed(market, order_id)
    assert await market.available(lamp) == 0
    await lacks_nothing(market)


@pytest.mark.long
async def test_points_that_an_ended_order_holds_are_given_back(market: Market):
    customer = await market.customer(points=500)
    lamp, _ = await market.lamps_and_cups(lamps=0)
    order_id = await market.place(market.order((lamp, 1), customer_id=customer))
    await market.ended(order_id, "rejected")

    async def identified() -> bool:
        return bool(await market.rows("customer", "SELECT FROM identifications WHERE order_id = $1", order_id))

    await until("customer knows the order", identified)
    await market.rows(
        "customer",
        """WITH i AS (UPDATE identifications SET points_held = 120, customer_id = $2 WHERE order_id = $1),
                e AS (INSERT INTO points_entries (entry_id, customer_id, points, kind, order_id, occurred_at)
                      VALUES (gen_random_uuid(), $2, -120, 'redeemed', $1, now()))
           UPDATE customers SET points_held = 120, points_balance = points_balance - 120 WHERE customer_id = $2""",
        order_id, customer,
    )  # fmt: skip
    await mended(market, "points", order_id)
    (row,) = await market.rows(
        "customer", "SELECT points_held, points_balance FROM customers WHERE customer_id = $1", customer
    )
    assert (row["points_held"], row["points_balance"]) == (0, 500)
    await lacks_nothing(market)


@pytest.mark.long
async def test_a_coupon_that_an_ended_order_holds_is_free_again(market: Market):
    lamp, _ = await market.lamps_and_cups()
    code = market.name("coupon")
    await market.platform.ask("pricing", "PUT", f"/coupons/{code}", json={"percent": "10", "priority": 50})
    order_id = await market.place(market.order((lamp, 1), token="tok_declined", coupon=code))
    await market.ended(order_id, "rejected")
    await market.gives_everything_back(order_id)
    await market.rows("pricing", "UPDATE coupon_uses SET state = 'held' WHERE coupon = $1", code)
    await market.rows("pricing", "UPDATE order_prices SET coupon = $1 WHERE order_id = $2", code, order_id)
    await market.rows("pricing", "UPDATE coupons SET used = used + 1 WHERE code = $1", code)
    await mended(market, "coupon", order_id)
    (row,) = await market.rows("pricing", "SELECT used FROM coupons WHERE code = $1", code)
    assert row["used"] == 0
    await lacks_nothing(market)


async def test_a_refund_that_nobody_asks_about_any_more_is_found_at_the_provider(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 1)))
    order = await market.booked(order_id)
    payment_id = order["payment"]["payment_id"]
    async with market.provider_that(refund_decline_rate=1.0):
        await market.cancel(order_id)
        await market.ended(order_id, "cancelled")

        async def declined() -> bool:
            where = "payment_id = $1 AND declines > 0 AND due_at > now()"
            return bool(await market.rows("order", f"SELECT FROM refunds WHERE {where}", payment_id))

        await until("the provider has declined the refund", declined)
        (refund,) = await market.rows(
            "order", "UPDATE refunds SET due_at = NULL WHERE payment_id = $1 RETURNING *", payment_id
        )
    # It pays out after all, and we do not hear of it.
    key = str(uuid5(UUID(str(refund["refund_id"])), f"after/{refund['declines']}"))
    theirs = (await market.provider("GET", "/v1/payments", params={"reference": payment_id})).json()["data"][0]
    headers = {
        "Idempotency-Key": key,
        "Authorization": f"Bearer {market.platform.stack.secrets['payments_api_key']}",
    }
    body = {"amount": "24.90", "reference": str(refund["refund_id"])}
    paid = await market.ask("payments", "POST", f"/v1/payments/{theirs['id']}/refunds", json=body, headers=headers)
    assert paid.json()["status"] == "succeeded", paid.text
    one = await mended(market, "payment", payment_id)
    assert one["expected"] == "captured 24.90, refunded 0"
    assert await market.kept_money(order_id) == Decimal(0)
    assert (await market.look(order_id))["payment"]["refunded"] == "24.90"
    await lacks_nothing(market)


async def test_healthy_orders_are_left_alone(market: Market):
    """At this pace, through every stage that a sale, a cancellation and a refusal have."""
    lamp, cup = await market.lamps_and_cups()
    before = await market.rows("order", "SELECT FROM timeline WHERE type = 'OrderRestated'")
    sold, gone, partly = [await market.place(market.order((lamp, 1), (cup, 2))) for _ in range(3)]
    refused = await market.place(market.order((lamp, 1), token="tok_declined"))
    for order_id in (sold, gone, partly):
        await market.booked(order_id)
    await market.cancel(gone)
    await market.cancel(partly, lines=[{"line": 2, "quantity": 1}])
    await asyncio.sleep(4)
    await market.move(sold, "collected")
    await asyncio.sleep(4)
    await market.move(sold, "delivered")
    await market.ended(sold, "closed")
    await asyncio.sleep(4)
    for order_id in (sold, gone, partly, refused):
        assert await market.rows("order", "SELECT FROM findings WHERE subject = $1", order_id) == []
    assert len(await market.rows("order", "SELECT FROM timeline WHERE type = 'OrderRestated'")) == len(before)
    await lacks_nothing(market)
