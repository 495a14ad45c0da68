"""Parcels between our tables and the carrier's: one booking each, whatever is asked, heard or lost in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr, ValidationError

from deploy.local.carrier.__main__ import assemble
from deploy.local.carrier.behaviour import Behaviour, Settings
from services.order import reminders
from services.order.payments.decisions import PaymentReport
from services.order.payments.worker import Outcome as Paid
from services.order.payments.worker import apply as pay
from services.order.shipping import store as parcels
from services.order.shipping.carrier import Recipient
from services.order.shipping.decisions import Booking, ParcelReport
from services.order.shipping.sandbox import SandboxCarrier
from services.order.shipping.worker import Outcome, ParcelCalls, apply
from services.order.signals import signals
from shared.clients import ServiceClient
from shared.health import Health
from shared.postgres import Database
from tests.support.http import listening
from tests.support.kernel import rows
from tests.support.shop import SECRET, SETTINGS, counter, open_shop, order_row, paying_order, timeline

CAPTURED = PaymentReport("captured", Decimal("40.00"), "pay_1")
GIVE_UP = timedelta(days=14)
RECIPIENT = {"name": "Anna Ash", "street": "Elm Row 1", "city": "Ulm", "postal_code": "", "phone": "", "country": "DE"}


async def confirmed(database: Database) -> UUID:
    """An order of a lamp in Berlin and two cups in Graz: two parcels."""
    await open_shop(database)
    order_id = await paying_order(database)
    await pay(database, [Paid(order_id, CAPTURED)])
    return order_id


def label(number: int) -> Booking:
    return Booking("post", f"c{number}", f"T{number}", datetime.now(UTC) + timedelta(days=2), Decimal("4.40"), "GBP")


async def claim(database: Database) -> list[Any]:
    async with database.transaction() as tx:
        return list(await parcels.claim(tx, 10))


async def booked(database: Database) -> UUID:
    """As confirmed, and both parcels are booked."""
    order_id = await confirmed(database)
    await claim(database)
    await apply(database, [Outcome(order_id, n, 0, booking=label(n)) for n in (1, 2)], GIVE_UP)
    return order_id


async def cancel(database: Database, order_id: UUID, key: str = "k", **body: Any) -> int:
    async with counter(database) as client:
        path = f"/orders/{order_id}/cancellations"
        return (await client.post(path, json=body, headers={"Idempotency-Key": key})).status_code


async def states(database: Database) -> list[str]:
    return [row["state"] for row in await rows(database, "SELECT state FROM parcels ORDER BY number")]


@dataclass
class World:
    calls: ParcelCalls
    carrier: str

    async def log(self) -> list[dict[str, Any]]:
        async with httpx2.AsyncClient(headers={"Authorization": "Bearer merchant"}) as client:
            return (await client.get(f"{self.carrier}/v1/parcels")).json()["data"]


@asynccontextmanager
async def working(database: Database, path: Path, **behaviour: Any) -> AsyncGenerator[World]:
    """The worker at work, with the carrier's sandbox and a customer service that knows one recipient."""
    settings = Settings(
        database=path / "carrier.db", api_key=SecretStr("merchant"), webhook_secret=SecretStr(SECRET), webhook_url=None
    )
    others = FastAPI()

    @others.post("/token")
    async def token() -> dict[str, Any]:
        return {"access_token": "t", "expires_in": 600}

    @others.get("/recipients/{recipient_id}")
    async def recipient(recipient_id: UUID) -> dict[str, str]:
        return RECIPIENT

    so = Behaviour.model_validate({"moves_by_itself": False, **behaviour})
    async with listening(assemble(settings, so)) as url, listening(others) as house:
        customers = ServiceClient(house, SETTINGS.model_copy(update={"auth_token_url": f"{house}/token"}))
        calls = ParcelCalls(database, SandboxCarrier(url, "merchant", SECRET, 2.0), customers, GIVE_UP)
        signals.parcels_due = calls.calls.wake
        loops = [asyncio.create_task(one.run(Health())) for one in calls.calls.workers]
        try:
            yield World(calls, url)
        finally:
            for loop in calls.calls.workers:
                loop.stop()
            await asyncio.gather(*loops)
            await calls.close()
            signals.parcels_due = lambda: None


async def until(database: Database, *wanted: str) -> None:
    for _ in range(200):
        if await states(database) == list(wanted):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{await states(database)} is not {wanted}")


async def test_two_booked_parcels_are_called_back_once_each_and_the_order_is_cancelled(
    database: Database, tmp_path: Path
):
    async with working(database, tmp_path) as world:
        order_id = await confirmed(database)
        await until(database, "booked", "booked")
        assert await cancel(database, order_id) == 202
        await until(database, "dropped", "dropped")
        log = await world.log()
    said = Counter(await timeline(database, order_id))
    assert (said["CancellationRequested"], said["ParcelRecalled"], said["OrderCancelled"]) == (1, 2, 1)
    assert [one["status"] for one in log] == ["cancelled", "cancelled"]


async def test_blanks_in_an_address_do_not_make_it_undeliverable(database: Database, tmp_path: Path):
    async with working(database, tmp_path):
        await confirmed(database)
        await until(database, "booked", "booked")


async def test_a_booking_that_comes_after_its_recall_was_conceded_is_called_back(database: Database, tmp_path: Path):
    """A worker that was held up books a parcel that nobody wants any more."""
    async with working(database, tmp_path) as world:
        order_id = await confirmed(database)
        await until(database, "booked", "booked")
        await cancel(database, order_id)
        await until(database, "dropped", "dropped")
        async with httpx2.AsyncClient(headers={"Authorization": "Bearer merchant"}) as client:
            late = {"reference": f"{order_id}/1/0/late", "from": "BER", "units": 1,
                    "recipient": {"name": "A", "street": "s", "city": "c", "country": "DE"}}  # fmt: skip
            made = await client.post(f"{world.carrier}/v1/parcels", json=late, headers={"Idempotency-Key": "late"})
        stray = Booking("post", made.json()["id"], "T", None, Decimal("4.40"), "GBP")
        await world.calls._store([Outcome(order_id, 1, 0, booking=stray)])
        assert {one["status"] for one in await world.log()} == {"cancelled"}


async def test_two_refused_recalls_are_two_events(database: Database):
    order_id = await booked(database)
    for key in ("first", "second"):
        assert await cancel(database, order_id, key, lines=[{"line": 1, "quantity": 1}]) == 202
        await apply(database, [Outcome(order_id, 1, 0, granted=False)], GIVE_UP)
    found = await rows(database, "SELECT id FROM outbox WHERE type LIKE '%CancellationRefused%'")
    assert len({row["id"] for row in found}) == 2


async def test_a_look_up_that_ends_does_not_put_off_a_recall_that_began_meanwhile(database: Database):
    order_id = await booked(database)
    async with database.transaction() as tx:
        await tx.db.execute("UPDATE parcels SET due_at = now() - interval '1 s', attempts = 6")
    looked_up = await claim(database)
    assert await cancel(database, order_id) == 202
    async with database.transaction() as tx:
        for row in looked_up:
            await parcels.again(tx, row, tracking=True)
    waiting = await rows(database, "SELECT state, due_at <= now() AS due FROM parcels")
    assert [(row["state"], row["due"]) for row in waiting] == [("recalling", True)] * 2


async def test_what_is_planned_is_not_booked_while_the_order_is_being_cancelled(database: Database):
    order_id = await booked(database)
    await cancel(database, order_id)
    await claim(database)
    await apply(database, [Outcome(order_id, 1, 0, granted=True)], GIVE_UP)
    assert await states(database) == ["planned", "recalling"]
    assert [row["number"] for row in await claim(database)] == []


async def test_no_news_of_a_parcel_changes_nothing(database: Database):
    order_id = await booked(database)
    query = "SELECT o.xmin::text AS o, p.xmin::text AS p FROM orders o JOIN payments p USING (order_id)"
    before = [tuple(row) for row in await rows(database, query)]
    now = datetime.now(UTC)
    await apply(database, [Outcome(order_id, 1, 0, report=ParcelReport("booked", now), asked_at=now)], GIVE_UP)
    assert [tuple(row) for row in await rows(database, query)] == before


async def test_a_booking_found_only_when_it_is_called_back_too_late_is_known_all_the_same(database: Database):
    order_id = await confirmed(database)
    await claim(database)
    await cancel(database, order_id)
    await apply(database, [Outcome(order_id, 1, 0, booking=label(1), granted=False)], GIVE_UP)
    (row,) = await rows(database, "SELECT state, tracking, price FROM parcels WHERE number = 1")
    assert (row["state"], row["tracking"], row["price"]) == ("booked", "T1", Decimal("4.40"))
    said = await timeline(database, order_id)
    assert (said.count("ParcelBooked"), said.count("CancellationRefused")) == (1, 1)


@pytest.mark.parametrize(("state", "end"), [("booked", "recalling"), ("shipped", "lost")])
async def test_a_parcel_that_is_never_heard_of_again_is_given_up(database: Database, state: str, end: str):
    order_id = await booked(database)
    now = datetime.now(UTC)
    if state == "shipped":
        await apply(database, [Outcome(order_id, 1, 0, report=ParcelReport("shipped", now))], GIVE_UP)
    for days in (3, 3, 30):
        await apply(database, [Outcome(order_id, 1, 0, asked_at=now + timedelta(days=days))], GIVE_UP)
    assert (await states(database))[0] == end
    assert (await timeline(database, order_id)).count("ParcelLate") == 1


async def test_a_booking_that_comes_after_it_was_given_up_is_called_back(database: Database):
    order_id = await confirmed(database)
    await claim(database)
    much_later = datetime.now(UTC) + timedelta(days=30)
    await apply(database, [Outcome(order_id, 1, 0, asked_at=much_later)], GIVE_UP)
    assert await states(database) == ["refused", "booking"]
    assert await apply(database, [Outcome(order_id, 1, 0, booking=label(1))], GIVE_UP) == ["c1"]


async def test_settled_orders_that_nobody_answers_are_heard_of_again(database: Database):
    order_id = await booked(database)
    now = datetime.now(UTC)
    for number in (1, 2):
        await apply(database, [Outcome(order_id, number, 0, report=ParcelReport("delivered", now))], GIVE_UP)
    assert (await order_row(database, order_id))["settled"]
    await reminders.remind_settled(database)
    assert (await timeline(database, order_id)).count("OrderSettled") == 1
    async with database.transaction() as tx:
        await tx.db.execute("UPDATE orders SET changed_at = now() - interval '6 minutes'")
    await reminders.remind_settled(database)
    said = Counter(await timeline(database, order_id))
    assert (said["OrderSettled"], said["ParcelShipped"]) == (2, 4)
    assert await states(database) == ["delivered", "delivered"], "what is said again takes nothing back"


def test_a_recipient_that_cannot_be_read_is_not_shown_in_the_error():
    with pytest.raises(ValidationError) as caught:
        Recipient.model_validate({**RECIPIENT, "country": None})
    assert "Anna" not in str(caught.value)
