"""Orders that are stuck are found, with what they wait for; asked about again, or cancelled, by an operator."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from services.order import operations
from services.order.payments.decisions import PaymentReport
from services.order.payments.worker import Outcome as Paid
from services.order.payments.worker import apply as pay
from services.order.shipping import store as parcels
from services.order.shipping.decisions import Booking, ParcelReport
from services.order.shipping.worker import Outcome, apply
from services.order.signals import signals
from shared.postgres import Database
from tests.support.http import Issuer, client_of
from tests.support.kernel import rows, value
from tests.support.shop import app_of, body, open_shop, order_row, paying_order, place, timeline


@asynccontextmanager
async def desk(database: Database, scope: str = "admin") -> AsyncGenerator[httpx2.AsyncClient]:
    """An operator's client of the order service."""
    issuer = Issuer()
    app = app_of(database, issuer)
    app.include_router(operations.routes(database))
    async with client_of(app, issuer.token(scope, sub="olga")) as client:
        yield client


async def stuck(database: Database, **params: Any) -> list[dict[str, Any]]:
    async with desk(database) as client:
        answer = await client.get("/admin/process/stuck", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def retry(database: Database, order_id: UUID) -> list[tuple[str, str]]:
    async with desk(database) as client:
        answer = await client.post(f"/admin/process/{order_id}/retry")
    assert answer.status_code == 200, answer.text
    return [(one["what"], one["state"]) for one in answer.json()["woken"]]


async def sql(database: Database, query: str, *arguments: Any) -> None:
    async with database.transaction() as tx:
        await tx.db.execute(query, *arguments)


async def confirmed(database: Database) -> UUID:
    """An order of two parcels, which are being booked."""
    await open_shop(database)
    order_id = await paying_order(database)
    await pay(database, [Paid(order_id, PaymentReport("captured", Decimal("40.00"), "pay_1"))])
    async with database.transaction() as tx:
        await parcels.claim(tx, 10)
    return order_id


async def test_orders_that_go_their_way_are_not_stuck(database: Database):
    await confirmed(database)
    await paying_order(database, "shop-2")
    await place(database, body("shop-3"))
    assert await stuck(database) == []


async def test_a_deadline_that_nobody_judged_is_named_with_what_is_missing(database: Database):
    await open_shop(database)
    (order_id,) = await place(database, body())
    await sql(database, "UPDATE orders SET deadline_at = now() - interval '90 s', held = true")
    (one,) = await stuck(database)
    assert (one["order_id"], one["what"], one["state"]) == (str(order_id), "deadline", "placed")
    assert one["waits_for"].startswith("identification, price; ")
    assert await stuck(database, older_than=100) == []
    assert await retry(database, order_id) == []  # to make its deadline due would end it


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("attempts = 4", "a clear answer of the payment provider"),
        ("attempts = 9, closing = true, state = 'pending'", "the provider's word that the payment is closed"),
        ("due_at = now() - interval '2 minutes'", "somebody to ask"),
    ],
)
async def test_a_payment_without_an_answer_is_asked_about_now(database: Database, change: str, words: str):
    await open_shop(database)
    order_id = await paying_order(database)
    await sql(database, f"UPDATE payments SET due_at = now() + interval '1 hour', {change}".replace(
        "due_at = now() + interval '1 hour', due_at", "due_at"))  # fmt: skip
    (one,) = await stuck(database)
    assert (one["what"], one["waits_for"][: len(words)]) == ("payment", words)
    woken: list[str] = []
    signals.payments_due = lambda: woken.append("payments")
    try:
        assert await retry(database, order_id) == [("payment", one["state"])]
    finally:
        signals.payments_due = lambda: None
    assert woken == ["payments"]
    assert (await order_row(database, order_id))["due_at"] <= datetime.now(UTC)


async def test_a_buyer_at_the_bank_is_not_stuck(database: Database):
    await open_shop(database)
    await paying_order(database)
    await sql(database, "UPDATE payments SET state = 'action_required', attempts = 12")
    assert await stuck(database) == []


async def test_parcels_that_the_carrier_does_not_answer_for_are_asked_about_now(database: Database):
    order_id = await confirmed(database)
    await sql(database, "UPDATE parcels SET attempts = 5, due_at = now() + interval '20 s' WHERE number = 1")
    (one,) = await stuck(database)
    assert (one["what"], one["parcel"], one["state"], one["attempts"]) == ("parcel", 1, "booking", 5)
    assert "`parcel: no answer`" in one["waits_for"]
    assert await retry(database, order_id) == [("parcel", "booking"), ("parcel", "booking")]
    async with database.transaction() as tx:
        assert [row["number"] for row in await parcels.claim(tx, 10)] == [1, 2]


async def test_a_refund_that_the_provider_declines_is_shown_with_how_often(database: Database):
    order_id = await confirmed(database)
    await sql(database, "UPDATE parcels SET state = 'planned'")
    async with desk(database) as client:
        path = f"/admin/process/{order_id}/cancel"
        await client.post(path, json={"reason": "recalled"}, headers={"Idempotency-Key": "k"})
    await sql(database, "UPDATE refunds SET attempts = 4, declines = 2, due_at = now() + interval '30 s'")
    (one,) = await stuck(database)
    assert (one["what"], one["waits_for"]) == ("refund", "the payment provider, which has declined the refund 2 times")
    assert one["refund_id"] is not None
    assert await retry(database, order_id) == [("refund", "requested")]
    assert await value(database, "SELECT due_at <= now() FROM refunds")


async def test_a_settled_order_that_nobody_answers_is_heard_of_again(database: Database):
    order_id = await confirmed(database)
    now = datetime.now(UTC)
    label = Booking("post", "c", "T", None, Decimal("4.40"), "GBP")
    for number in (1, 2):
        delivered = ParcelReport("delivered", now)
        await apply(database, [Outcome(order_id, number, 0, booking=label, report=delivered)], now - now)
    assert await stuck(database) == []
    (one,) = await stuck(database, older_than=0)
    assert (one["what"], one["state"]) == ("answers", "confirmed")
    assert one["waits_for"] == "StockIssued of parcel 1, 2 by inventory and PointsSettled by customer"
    assert await retry(database, order_id) == [("answers", "confirmed")]
    said = await timeline(database, order_id)
    assert (said.count("OrderSettled"), said.count("ParcelShipped")) == (2, 4)
    assert (await stuck(database, older_than=0))[0]["since"] == one["since"]


async def test_an_operator_cancels_an_order_once(database: Database):
    await open_shop(database)
    order_id = await paying_order(database)
    async with desk(database) as client:
        path, key = f"/admin/process/{order_id}/cancel", {"Idempotency-Key": "k"}
        answers = [await client.post(path, json={"reason": "fraud"}, headers=key) for _ in range(2)]
        assert [(one.status_code, one.json()["state"], one.json()["reason"]) for one in answers] == [
            (200, "cancelled", "fraud")
        ] * 2
        other = await client.post(path, json={"reason": "typo"}, headers=key)
        assert (other.status_code, other.json()["type"]) == (409, "urn:isthmus:problem:idempotency_key_reused")
        again = await client.post(path, json={"reason": "fraud"}, headers={"Idempotency-Key": "k2"})
        assert again.status_code == 200
    assert (await timeline(database, order_id)).count("OrderCancelled") == 1


async def test_parcels_at_the_carrier_are_called_back_first_and_what_has_left_is_not_cancelled(database: Database):
    order_id = await confirmed(database)
    async with desk(database) as client:
        path = f"/admin/process/{order_id}/cancel"
        pending = await client.post(path, json={"reason": "fraud"}, headers={"Idempotency-Key": "k"})
        assert (pending.status_code, pending.json()["cancellation_pending"]) == (202, True)
        await sql(database, "UPDATE orders SET cancellation = NULL")
        await sql(database, "UPDATE parcels SET state = 'shipped'")
        gone = await client.post(path, json={"reason": "fraud"}, headers={"Idempotency-Key": "k2"})
        assert (gone.status_code, gone.json()["type"]) == (409, "urn:isthmus:problem:not_cancellable")


async def test_nobody_knows_an_order_that_is_not_there_and_only_operators_may(database: Database):
    async with desk(database) as client:
        nobody = f"/admin/process/{uuid4()}"
        key = {"Idempotency-Key": "k"}
        assert (await client.post(f"{nobody}/retry")).status_code == 404
        assert (await client.post(f"{nobody}/cancel", json={"reason": "fraud"}, headers=key)).status_code == 404
        assert (await client.post(f"{nobody}/cancel", json={}, headers=key)).status_code == 422
    async with desk(database, "orders:read orders:write") as client:
        assert (await client.get("/admin/process/stuck")).status_code == 403
        assert (await client.post(f"{nobody}/retry")).status_code == 403
    assert await rows(database, "SELECT FROM idempotency_keys") == []
