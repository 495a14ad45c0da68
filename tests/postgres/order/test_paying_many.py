"""Many payments at once, a provider that says odd things, and payments given up while their call is under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2

from services.order.payments.decisions import PaymentReport
from services.order.payments.provider import UnknownOutcomeError
from services.order.payments.worker import PaymentCalls
from shared.health import Health
from shared.postgres import Database
from tests.postgres.order.test_deadlines import cancel_order
from tests.postgres.order.test_provider import Till, till
from tests.support.kernel import rows, value
from tests.support.shop import answer, body, open_shop, order_row, paying_order, place

Word = Callable[[UUID, Decimal], Coroutine[Any, Any, PaymentReport]]


async def captured(payment_id: UUID, amount: Decimal) -> PaymentReport:
    return PaymentReport("captured", amount, f"pay_{payment_id}")


@dataclass
class Scripted:
    """A provider that answers a charge as told, after a while; it never heard of a payment it is asked about."""

    word: Word = captured
    seconds: float = 0.0
    charged: list[UUID] = field(default_factory=list[UUID])
    looked_up: list[UUID] = field(default_factory=list[UUID])

    async def charge(self, payment_id: UUID, token: str, amount: Decimal, currency: str) -> PaymentReport:
        self.charged.append(payment_id)
        await asyncio.sleep(self.seconds * (0.5 + len(self.charged) % 11 / 10))  # on the average; they end one by one
        return await self.word(payment_id, amount)

    async def look_up(self, payment_id: UUID) -> PaymentReport | None:
        self.looked_up.append(payment_id)
        return None

    async def payments_since(self, cursor: str | None) -> tuple[list[tuple[str, PaymentReport]], str | None]:
        return [], None

    async def void(self, payment_id: UUID, provider_reference: str) -> PaymentReport:
        raise UnknownOutcomeError("void")

    async def refund(self, refund_id: UUID, key: UUID, provider_reference: str, amount: Decimal) -> bool:
        return True

    def webhook(self, headers: dict[str, str], body: bytes) -> tuple[UUID, PaymentReport] | None:
        return None

    async def close(self) -> None: ...


@asynccontextmanager
async def working(worker: PaymentCalls) -> AsyncGenerator[None]:
    health = Health()
    loops = [asyncio.create_task(one.run(health)) for one in worker.calls.workers]
    try:
        yield
    finally:
        for loop in worker.calls.workers:
            loop.stop()
        await asyncio.wait_for(asyncio.gather(*loops), 5)


async def test_600_payments_are_called_for_as_fast_as_the_provider_answers(database: Database):
    await open_shop(database)
    for begin in range(0, 600, 200):
        await answer(database, await place(database, *(body(f"shop-{begin + n}") for n in range(200))))
    provider = Scripted(seconds=0.05)
    began = time.monotonic()
    async with working(PaymentCalls(database, provider)):
        while await value(database, "SELECT count(*) FROM payments WHERE state <> 'captured'"):
            assert time.monotonic() - began < 3, "they come in drops"
            await asyncio.sleep(0.05)
    assert len(provider.charged) == len(set(provider.charged)) == 600
    assert await value(database, "SELECT count(*) FROM orders WHERE state = 'confirmed'") == 600


async def test_an_outcome_that_cannot_be_stored_does_not_hold_up_the_others(database: Database):
    await open_shop(database)
    orders = [await paying_order(database, f"shop-{n}") for n in range(5)]
    odd = await value(database, "SELECT payment_id FROM payments WHERE order_id = $1", orders[2])

    async def once_in_a_while_nonsense(payment_id: UUID, amount: Decimal) -> PaymentReport:
        return PaymentReport("captured", amount, "pay\0" if payment_id == odd else f"pay_{payment_id}")

    worker = PaymentCalls(database, Scripted(once_in_a_while_nonsense))
    await worker.calls._claim()
    await asyncio.wait(set(worker.calls._calls))
    assert not await worker.calls._store()
    states = [(await order_row(database, order_id))["state"] for order_id in orders]
    assert states == ["confirmed", "confirmed", "paying", "confirmed", "confirmed"]
    due = await value(database, "SELECT due_at - now() < interval '31 s' FROM payments WHERE payment_id = $1", odd)
    assert due, "it is asked about again when its lease ends"


async def test_a_payment_given_up_during_its_call_is_asked_about_as_soon_as_the_call_ends(database: Database):
    await open_shop(database)
    order_id = await paying_order(database)
    given_up = asyncio.Event()

    async def unclear(payment_id: UUID, amount: Decimal) -> PaymentReport:
        await given_up.wait()
        raise UnknownOutcomeError("no answer came")

    provider = Scripted(unclear)
    worker = PaymentCalls(database, provider)
    await worker.calls._claim()
    await asyncio.sleep(0)
    await cancel_order(database, order_id)
    given_up.set()
    await asyncio.wait(set(worker.calls._calls))
    assert await value(database, "SELECT closing AND due_at <= now() FROM payments")
    await worker.calls._claim()
    await asyncio.wait(set(worker.calls._calls))
    assert provider.looked_up == provider.charged
    await worker.calls._store()
    row = await order_row(database, order_id)
    assert (row["state"], row["payment_state"], row["due_at"]) == ("cancelled", "declined", None)


async def behave(shop: Till, **rates: float) -> None:
    async with merchant(shop) as client:
        (await client.put("/sandbox/behaviour", json=rates)).raise_for_status()


async def refunds(shop: Till) -> list[tuple[str, str]]:
    """Reference and status of each refund that the provider was asked for, in its books."""
    async with merchant(shop) as client:
        return [(one["reference"], one["status"]) for one in (await client.get("/v1/refunds")).json()["data"]]


def merchant(shop: Till) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=shop.url, headers={"Authorization": "Bearer merchant"})


async def test_a_declined_refund_is_tried_again_with_a_new_key_and_the_same_reference(
    database: Database, tmp_path: Path
):
    async with till(database, tmp_path, refund_decline_rate=1) as shop:
        order_id = await paying_order(database)
        await shop.until_state(order_id, "confirmed")
        await cancel_order(database, order_id)
        await shop.turn()
        await shop.turn()
        (refund,) = await rows(database, "SELECT refund_id, state, declines, due_at > now() AS later FROM refunds")
        assert (refund["state"], refund["declines"], refund["later"]) == ("requested", 2, True)
        await behave(shop, refund_decline_rate=0)
        await shop.turn()
        await shop.turn()
        reference = str(refund["refund_id"])
        assert await refunds(shop) == [(reference, "declined"), (reference, "declined"), (reference, "succeeded")]
        assert [one["refunded"] for one in await shop.books()] == ["40.00"]
    row = await order_row(database, order_id)
    assert (row["refunded"], row["owed"]) == (Decimal(40), 0)
