"""Orders are paid at a real sandbox that answers late, drops connections and forgets: its truth decides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import orjson
import pytest
from standardwebhooks import Webhook

from services.order.payments.decisions import PaymentReport
from services.order.payments.provider import UnknownOutcomeError
from services.order.payments.worker import Outcome, PaymentCalls, apply
from shared.postgres import Database
from tests.postgres.order.test_deadlines import cancel_order, expire, make_due
from tests.support.kernel import value
from tests.support.shop import SECRET, counter, open_shop, order_row, paying_order, provider_at, sandbox, timeline


@dataclass
class Till:
    """The payment worker of an order service, turned by hand, at a sandbox of its own."""

    database: Database
    worker: PaymentCalls
    url: str

    async def turn(self) -> None:
        """What is due is asked for, and what came of it stored."""
        async with self.database.transaction() as tx:
            await tx.db.execute("UPDATE payments SET due_at = now() WHERE due_at IS NOT NULL")
            await tx.db.execute("UPDATE refunds SET due_at = now() WHERE due_at IS NOT NULL")
        await self.worker.calls._claim()
        while self.worker.calls._calls:
            await asyncio.wait(set(self.worker.calls._calls))
        await self.worker.calls._store()

    async def until(self, condition: Callable[[], Coroutine[Any, Any, bool]], turns: int = 40) -> None:
        for _ in range(turns):
            await self.turn()
            if await condition():
                return
            await asyncio.sleep(0.05)
        raise AssertionError("it did not come to that")

    async def until_state(self, order_id: UUID, state: str) -> None:
        async def there() -> bool:
            return (await order_row(self.database, order_id))["state"] == state

        await self.until(there)

    async def books(self) -> list[dict[str, Any]]:
        async with httpx2.AsyncClient(base_url=self.url, headers={"Authorization": "Bearer merchant"}) as client:
            return (await client.get("/v1/payments")).json()["data"]


@asynccontextmanager
async def till(database: Database, path: Path, **rates: float) -> AsyncGenerator[Till]:
    await open_shop(database)
    async with sandbox(path, None, **rates) as url:
        provider = provider_at(url)
        yield Till(database, PaymentCalls(database, provider), url)
        await provider.close()


@pytest.mark.parametrize("token", ["tok_ok", "tok_timeout", "tok_drop", "tok_lost", "tok_slow"])
async def test_whatever_the_answer_the_money_is_taken_once(database: Database, tmp_path: Path, token: str):
    async with till(database, tmp_path) as shop:
        order_id = await paying_order(database, token=token)
        await shop.until_state(order_id, "confirmed")
        assert [(one["status"], one["amount"]) for one in await shop.books()] == [("captured", "40.00")]
    row = await order_row(database, order_id)
    assert (row["payment_state"], row["captured"], row["owed"], row["due_at"]) == ("captured", 40, 40, None)
    assert (await timeline(database, order_id)).count("PaymentCaptured") == 1


@pytest.mark.parametrize("token", ["tok_declined", "tok_insufficient_funds", "tok_slow_declined", "tok_unheard_of"])
async def test_a_declined_payment_ends_the_order(database: Database, tmp_path: Path, token: str):
    async with till(database, tmp_path) as shop:
        order_id = await paying_order(database, token=token)
        await shop.until_state(order_id, "rejected")
    row = await order_row(database, order_id)
    assert (row["reason"], row["owed"], row["due_at"]) == ("payment_declined", 0, None)


async def test_a_payment_that_never_ends_is_closed_at_the_deadline(database: Database, tmp_path: Path):
    async with till(database, tmp_path) as shop:
        order_id = await paying_order(database, token="tok_never")
        await shop.turn()
        await shop.turn()
        assert (await order_row(database, order_id))["payment_state"] == "pending"
        await make_due(database)
        await expire(database)
        await shop.until_state(order_id, "expired")
        assert [one["status"] for one in await shop.books()] == ["cancelled"]
    assert (await timeline(database, order_id))[-2:] == ["PaymentDeclined", "OrderExpired"]


@pytest.mark.parametrize(("outcome", "state"), [("success", "confirmed"), ("fail", "rejected")])
async def test_3d_secure_waits_for_the_buyer(database: Database, tmp_path: Path, outcome: str, state: str):
    async with till(database, tmp_path) as shop:
        order_id = await paying_order(database, token="tok_3ds")
        await shop.turn()
        await shop.turn()
        async with counter(database) as client:
            payment = (await client.get(f"/orders/{order_id}")).json()["payment"]
        assert payment["state"] == "action_required"
        async with httpx2.AsyncClient() as buyer:
            await buyer.get(payment["redirect_url"], params={"outcome": outcome})
        await shop.until_state(order_id, state)


async def test_a_payment_cancelled_on_its_way_is_voided_or_given_back(database: Database, tmp_path: Path):
    async with till(database, tmp_path) as shop:
        for number, token in enumerate(("tok_ok", "tok_drop", "tok_lost", "tok_slow", "tok_never", "tok_3ds")):
            order_id = await paying_order(database, f"shop-{number}", token=token)
            if number % 2 == 0:
                await shop.turn()
            if (await order_row(database, order_id))["state"] in ("paying", "confirmed"):
                await cancel_order(database, order_id)

        async def settled() -> bool:
            open_ = await value(database, "SELECT count(*) FROM payments WHERE due_at IS NOT NULL")
            return open_ + await value(database, "SELECT count(*) FROM refunds WHERE due_at IS NOT NULL") == 0

        await shop.until(settled)
        for payment in await shop.books():
            assert payment["status"] in ("cancelled", "captured")
            assert payment["status"] == "cancelled" or payment["refunded"] == "40.00"
    assert await value(database, "SELECT count(*) FROM payments WHERE captured <> refunded") == 0
    assert await value(database, "SELECT count(*) FROM orders WHERE state <> 'cancelled'") == 0


async def test_a_call_overtaken_by_the_closing_of_its_payment_is_looked_up_once_more(
    database: Database, tmp_path: Path
):
    """The closing finds nothing at the provider, and then the charge arrives after all, its answer lost."""
    async with till(database, tmp_path, slow_seconds=0.01) as shop:
        order_id = await paying_order(database, token="tok_drop")
        worker, provider = shop.worker, shop.worker._provider
        charge = provider.charge
        overtaken = asyncio.Event()

        async def slowly(*arguments: Any) -> Any:
            await overtaken.wait()
            return await charge(*arguments)

        provider.charge = slowly  # type: ignore[method-assign]
        await worker.calls._claim()
        first = set(worker.calls._calls)
        await cancel_order(database, order_id)
        await worker.calls._claim()  # due again at once: the closing
        closing = set(worker.calls._calls) - first
        await asyncio.wait(closing)
        await worker.calls._store()
        assert (await order_row(database, order_id))["payment_state"] == "declined"
        overtaken.set()
        await asyncio.wait(first)

        async def given_back() -> bool:
            return (await order_row(database, order_id))["refunded"] == 40

        await shop.until(given_back)
        assert [one["refunded"] for one in await shop.books()] == ["40.00"]


async def test_a_call_overtaken_by_its_webhook_is_looked_up_once_more_and_not_for_ever(
    database: Database, tmp_path: Path
):
    """The worker stands still, the webhook says no, and the answer of the call is lost."""
    async with till(database, tmp_path) as shop:
        order_id = await paying_order(database, token="tok_declined")
        worker, provider = shop.worker, shop.worker._provider
        charge = provider.charge
        arrived, overtaken = asyncio.Event(), asyncio.Event()

        async def lost(*arguments: Any) -> Any:
            await charge(*arguments)
            arrived.set()
            await overtaken.wait()
            raise UnknownOutcomeError("no answer within 5 s")

        provider.charge = lost  # type: ignore[method-assign]
        await worker.calls._claim()
        await arrived.wait()
        (known,) = await shop.books()
        await apply(database, [Outcome(order_id, PaymentReport("declined", Decimal("40.00"), known["id"]))])
        overtaken.set()
        await asyncio.wait(set(worker.calls._calls))
        assert (await order_row(database, order_id))["due_at"] is not None

        async def left_alone() -> bool:
            return (await order_row(database, order_id))["due_at"] is None

        await shop.until(left_alone, turns=3)
    row = await order_row(database, order_id)
    assert (row["state"], row["payment_state"], row["owed"]) == ("rejected", "declined", 0)


async def test_a_refund_is_paid_out_once(database: Database, tmp_path: Path):
    async with till(database, tmp_path) as shop:
        order_id = await paying_order(database)
        await shop.until_state(order_id, "confirmed")
        await cancel_order(database, order_id)
        await shop.turn()
        await shop.turn()
        assert [one["refunded"] for one in await shop.books()] == ["40.00"]
    row = await order_row(database, order_id)
    assert (row["refunded"], row["owed"]) == (Decimal(40), 0)


# -- webhooks ----------------------------------------------------------------------------------------------------------


def notice(payment_id: UUID, status: str = "captured", amount: str = "40.00") -> bytes:
    data = {"id": "pay_1", "status": status, "amount": amount, "reference": str(payment_id)}
    return orjson.dumps({"type": f"payment.{status}", "data": data})


def signed(content: bytes, *, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    moment = datetime.fromtimestamp(at or time.time(), UTC)
    signature = Webhook(secret).sign("msg_1", moment, content.decode())
    return {
        "webhook-id": "msg_1", "webhook-timestamp": str(int(moment.timestamp())), "webhook-signature": signature,
    }  # fmt: skip


async def test_a_signed_notice_confirms_the_order_once_however_often_it_comes(database: Database):
    await open_shop(database)
    order_id = await paying_order(database)
    payment_id = await value(database, "SELECT payment_id FROM payments")
    content = notice(payment_id)
    async with counter(database, provider=provider_at("http://127.0.0.1:9")) as client:
        answers = await asyncio.gather(
            *(client.post("/webhooks/payments", content=content, headers=signed(content)) for _ in range(10))
        )
        stale = notice(payment_id, "declined")
        await client.post("/webhooks/payments", content=stale, headers=signed(stale))
        stranger = notice(UUID(int=9))
        unknown = await client.post("/webhooks/payments", content=stranger, headers=signed(stranger))
    assert {answer.status_code for answer in [*answers, unknown]} == {204}
    row = await order_row(database, order_id)
    assert (row["state"], row["captured"], row["owed"]) == ("confirmed", 40, 40)
    assert (await timeline(database, order_id))[-2:] == ["PaymentCaptured", "OrderConfirmed"]


async def test_a_forged_notice_changes_nothing(database: Database):
    await open_shop(database)
    order_id = await paying_order(database)
    content = notice(await value(database, "SELECT payment_id FROM payments"))
    good = signed(content)
    forgeries: list[tuple[bytes, dict[str, str]]] = [
        (content, {}),
        (content, signed(content, secret="whsec_" + "b3RoZXI=")),
        (content, signed(content, at=time.time() - 3600)),
        (content, signed(content, at=time.time() + 3600)),
        (content, good | {"webhook-id": "msg_2"}),
        (content, good | {"webhook-timestamp": "soon"}),
        (content, good | {"webhook-signature": "v1"}),
        (content, good | {"webhook-signature": "v1,***"}),
        (content, good | {"webhook-signature": "v1,"}),
        (content.replace(b"40.00", b"41.00"), good),
        (b"\xff\xfe", good),
        (b"", good),
    ]
    async with counter(database, provider=provider_at("http://127.0.0.1:9")) as client:
        for forged, headers in forgeries:
            answer = await client.post("/webhooks/payments", content=forged, headers=headers)
            assert answer.status_code == 401, headers
    assert (await order_row(database, order_id))["state"] == "paying"
