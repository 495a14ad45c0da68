"""The sandbox payment provider, driven as a merchant would: over a real port, with a real receiver of webhooks."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from deploy.local.payments.__main__ import assemble
from deploy.local.payments.behaviour import Behaviour, Settings
from deploy.local.sandbox.money import to_minor, to_text
from deploy.local.sandbox.problems import ProblemError
from deploy.local.sandbox.webhooks import retry_after
from tests.support.http import listening
from tests.unit.local.outside import SECRET, healthy, merchant, process, shop, until

Payment = dict[str, Any]


@asynccontextmanager
async def provider(path: Path, webhook_url: str | None = None, **rates: float) -> AsyncGenerator[httpx2.AsyncClient]:
    settings = Settings(
        database=path / "payments.db",
        api_key=SecretStr("merchant"),
        webhook_secret=SecretStr(SECRET),
        webhook_url=webhook_url,
    )
    behaviour = Behaviour.model_validate({"slow_seconds": 0.1, "timeout_seconds": 0.3, **rates})
    async with listening(assemble(settings, behaviour)) as url, merchant(url) as client:
        yield client


def order(token: str = "tok_ok", reference: str = "lamp", amount: str = "12.34") -> dict[str, str]:
    return {"amount": amount, "currency": "GBP", "token": token, "reference": reference}


async def pay(client: httpx2.AsyncClient, token: str = "tok_ok", reference: str = "lamp") -> httpx2.Response:
    body = order(token, reference)
    return await client.post("/v1/payments", json=body, headers={"idempotency-key": reference}, timeout=5)


async def refund(client: httpx2.AsyncClient, payment: Payment, amount: str, key: str) -> httpx2.Response:
    body, headers = {"amount": amount, "reference": key}, {"idempotency-key": key}
    return await client.post(f"/v1/payments/{payment['id']}/refunds", json=body, headers=headers)


async def looked_up(client: httpx2.AsyncClient, reference: str = "lamp") -> list[Payment]:
    return (await client.get("/v1/payments", params={"reference": reference})).json()["data"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("token", "status", "decline_code"),
    [
        ("tok_ok", "captured", None),
        ("tok_declined", "declined", "declined"),
        ("tok_insufficient_funds", "declined", "insufficient_funds"),
        ("tok_expired_card", "declined", "expired_card"),
    ],
)
async def test_a_card_is_answered_at_once_and_by_webhook(
    tmp_path: Path, token: str, status: str, decline_code: str | None
) -> None:
    async with shop() as receiver, provider(tmp_path, receiver.url) as client:
        answer = await pay(client, token)
        payment = answer.json()
        assert (answer.status_code, payment["status"], payment["decline_code"]) == (201, status, decline_code)
        assert (payment["amount"], payment["refunded"], payment["redirect_url"]) == ("12.34", "0.00", None)
        assert (await client.get(f"/v1/payments/{payment['id']}")).json() == payment
        await until(lambda: len(receiver.webhooks) == 1)
        assert receiver.webhooks[0][1]["type"] == f"payment.{status}"
        assert receiver.webhooks[0][1]["data"] == payment


@pytest.mark.asyncio
@pytest.mark.parametrize(("token", "end"), [("tok_slow", "captured"), ("tok_slow_declined", "declined")])
async def test_a_slow_payment_ends_by_webhook(tmp_path: Path, token: str, end: str) -> None:
    async with shop() as receiver, provider(tmp_path, receiver.url) as client:
        assert (await pay(client, token)).json()["status"] == "pending"
        await until(lambda: receiver.told() == [(f"payment.{end}", "lamp")])
        again = await pay(client, token)
        assert (again.status_code, again.json()["status"]) == (200, end)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("outcome", "end", "decline_code"), [("success", "captured", None), ("fail", "declined", "authentication_failed")]
)
async def test_a_buyer_confirms_or_refuses_at_the_bank(
    tmp_path: Path, outcome: str, end: str, decline_code: str | None
) -> None:
    async with shop() as receiver, provider(tmp_path, receiver.url) as client:
        asked = (await pay(client, "tok_3ds")).json()
        assert asked["status"] == "requires_action"
        assert "Confirm" in (await client.get(asked["redirect_url"])).text
        for _ in range(2):  # a buyer who presses twice
            done = (await client.post(asked["redirect_url"], params={"outcome": outcome})).json()
            assert (done["status"], done["decline_code"], done["redirect_url"]) == (end, decline_code, None)
        other = "fail" if outcome == "success" else "success"
        assert (await client.get(asked["redirect_url"], params={"outcome": other})).status_code == 409
        await until(lambda: bool(receiver.webhooks))
        await asyncio.sleep(0.1)
        assert receiver.told() == [(f"payment.{end}", "lamp")]


@pytest.mark.asyncio
async def test_a_payment_that_never_ends_can_be_voided_but_a_captured_one_cannot(tmp_path: Path) -> None:
    async with shop() as receiver, provider(tmp_path, receiver.url) as client:
        pending, captured = (await pay(client, "tok_never")).json(), (await pay(client, "tok_ok", "mug")).json()
        for _ in range(2):
            assert (await client.post(f"/v1/payments/{pending['id']}/void")).json()["status"] == "cancelled"
        assert (await client.post(f"/v1/payments/{captured['id']}/void")).status_code == 409
        await until(lambda: len(receiver.webhooks) == 2)
        assert set(receiver.told()) == {("payment.cancelled", "lamp"), ("payment.captured", "mug")}


@pytest.mark.asyncio
async def test_a_voided_slow_payment_is_not_captured_later(tmp_path: Path) -> None:
    async with provider(tmp_path) as client:
        pending = (await pay(client, "tok_slow")).json()
        await client.post(f"/v1/payments/{pending['id']}/void")
        await asyncio.sleep(0.3)
        assert (await looked_up(client))[0]["status"] == "cancelled"


@pytest.mark.asyncio
async def test_a_timeout_captures_and_answers_too_late(tmp_path: Path) -> None:
    async with provider(tmp_path) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await client.post(
                "/v1/payments", json=order("tok_timeout"), headers={"idempotency-key": "lamp"}, timeout=0.1
            )
        assert [payment["status"] for payment in await looked_up(client)] == ["captured"]
        assert (await pay(client, "tok_timeout")).status_code == 200


@pytest.mark.asyncio
async def test_a_dropped_answer_leaves_one_payment(tmp_path: Path) -> None:
    async with provider(tmp_path) as client:
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await pay(client, "tok_drop")
        found = await looked_up(client)
        assert [payment["status"] for payment in found] == ["captured"]
        assert (await pay(client, "tok_drop")).json() == found[0]


@pytest.mark.asyncio
async def test_a_lost_request_leaves_nothing_and_the_retry_works(tmp_path: Path) -> None:
    async with provider(tmp_path) as client:
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await pay(client, "tok_lost")
        assert await looked_up(client) == []
        assert [(await pay(client, "tok_lost")).status_code for _ in range(2)] == [201, 200]


@pytest.mark.asyncio
async def test_one_key_is_one_payment_however_often_and_however_concurrently_it_is_sent(tmp_path: Path) -> None:
    async with provider(tmp_path, delay_ms=50) as client:
        answers = await asyncio.gather(*(pay(client) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert len(await looked_up(client)) == 1


@pytest.mark.asyncio
async def test_a_key_with_another_body_is_refused_but_another_spelling_of_the_amount_is_not(tmp_path: Path) -> None:
    async with provider(tmp_path) as client:
        payment, headers = (await pay(client)).json(), {"idempotency-key": "lamp"}
        for body in (order(amount="12.35"), order(reference="mug"), order("tok_slow")):
            answer = await client.post("/v1/payments", json=body, headers=headers)
            assert answer.status_code == 422
            assert answer.headers["content-type"] == "application/problem+json"
        assert (await client.post("/v1/payments", json=order(amount="12.340"), headers=headers)).json() == payment
        assert (await refund(client, payment, "12.34", "lamp")).status_code == 422


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (order("tok_gold"), {"idempotency-key": "a"}, 422),
        (order(amount="0.00"), {"idempotency-key": "a"}, 422),
        (order(amount="1.234"), {"idempotency-key": "a"}, 422),
        (order(amount="-1"), {"idempotency-key": "a"}, 422),
        ({**order(), "amount": 12.34}, {"idempotency-key": "a"}, 422),
        (order(), {}, 400),
        (order(), {"idempotency-key": "a", "authorization": "Bearer thief"}, 401),
        (order(), {"idempotency-key": "a", "authorization": ""}, 401),
    ],
)
async def test_a_bad_request_is_a_problem_and_leaves_nothing(
    tmp_path: Path, body: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    async with provider(tmp_path) as client:
        answer = await client.post("/v1/payments", json=body, headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (status, status)
        assert answer.headers["content-type"] == "application/problem+json"
        assert (await client.get("/v1/payments")).json() == {"data": [], "next_cursor": None}


@pytest.mark.asyncio
async def test_refunds_never_exceed_what_was_captured(tmp_path: Path) -> None:
    async with shop() as receiver, provider(tmp_path, receiver.url) as client:
        payment, pending = (await pay(client)).json(), (await pay(client, "tok_never", "mug")).json()
        assert (await refund(client, pending, "1", "early")).status_code == 422
        assert (await refund(client, payment, "12.35", "too-much")).status_code == 422
        first = await refund(client, payment, "10.00", "first")
        assert (first.status_code, first.json()["status"], first.json()["amount"]) == (201, "succeeded", "10.00")
        assert (await refund(client, payment, "2.35", "above")).status_code == 422
        assert (await refund(client, payment, "2.34", "rest")).status_code == 201
        again = await refund(client, payment, "10.00", "first")
        assert (again.status_code, again.json()) == (200, first.json())
        assert (await refund(client, payment, "9.00", "first")).status_code == 422
        assert (await looked_up(client))[0]["refunded"] == "12.34"
        await until(lambda: len(receiver.webhooks) == 3)
        assert {("refund.succeeded", "first"), ("refund.succeeded", "rest")} < set(receiver.told())
        assert [item["reference"] for item in (await client.get("/v1/refunds")).json()["data"]] == ["first", "rest"]


@pytest.mark.asyncio
async def test_many_concurrent_refunds_stay_within_the_payment(tmp_path: Path) -> None:
    async with provider(tmp_path) as client:
        payment = (await pay(client)).json()
        answers = await asyncio.gather(*(refund(client, payment, "1.00", f"part-{n}") for n in range(30)))
        assert [answer.status_code for answer in answers].count(201) == 12
        assert (await looked_up(client))[0]["refunded"] == "12.00"


@pytest.mark.asyncio
async def test_the_log_is_paged_in_the_order_of_recording(tmp_path: Path) -> None:
    async with provider(tmp_path) as client:
        for number in range(5):
            await pay(client, reference=f"lamp-{number}")
        seen: list[str] = []
        cursor: str | None = "0"
        while cursor is not None:
            page = (await client.get("/v1/payments", params={"cursor": cursor, "limit": 2})).json()
            seen += [payment["reference"] for payment in page["data"]]
            cursor = page["next_cursor"]
        assert seen == [f"lamp-{number}" for number in range(5)]


@pytest.mark.asyncio
async def test_a_webhook_is_repeated_under_one_id_until_it_is_accepted(tmp_path: Path) -> None:
    async with shop(refusals=2) as receiver, provider(tmp_path, receiver.url) as client:
        await pay(client)
        await until(lambda: bool(receiver.webhooks))
        assert (receiver.refusals, receiver.told()) == (0, [("payment.captured", "lamp")])
        assert (await client.get("/health")).json() == {"status": "ok", "webhooks_waiting": 0}


@pytest.mark.asyncio
async def test_webhooks_are_doubled_and_overtaken_when_asked(tmp_path: Path) -> None:
    async with shop() as receiver, provider(tmp_path, receiver.url) as client:
        await client.put("/sandbox/behaviour", json={"webhook_duplicate_rate": 1, "webhook_reorder_rate": 1})
        payment = (await pay(client)).json()
        await client.put("/sandbox/behaviour", json={})
        await refund(client, payment, "12.34", "all")
        await until(lambda: len(receiver.webhooks) == 3)
        captured = ("payment.captured", "lamp")
        assert receiver.told() == [("refund.succeeded", "all"), captured, captured]
        assert receiver.webhooks[1] == receiver.webhooks[2]


@pytest.mark.asyncio
async def test_rates_touch_tok_ok_only_and_can_be_changed_while_it_runs(tmp_path: Path) -> None:
    async with provider(tmp_path, decline_rate=1) as client:
        assert (await pay(client, "tok_ok", "a")).json()["status"] == "declined"
        assert (await pay(client, "tok_slow", "b")).json()["status"] == "pending"
        assert (await client.put("/sandbox/behaviour", json={"pending_rate": 1})).status_code == 422
        changed = await client.put("/sandbox/behaviour", json={"decline_rate": 0, "pending_rate": 1})
        assert changed.json() == (await client.get("/sandbox/behaviour")).json()
        assert (await pay(client, "tok_ok", "c")).json()["status"] == "pending"
        await client.put("/sandbox/behaviour", json={"drop_rate": 1})
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await pay(client, "tok_ok", "d")
        assert (await client.put("/sandbox/behaviour", json={"drop_rate": 0.6, "timeout_rate": 0.6})).status_code == 422
        assert (await client.put("/sandbox/behaviour", json={})).json()["decline_rate"] == 1


@pytest.mark.asyncio
async def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    soon = {"SANDBOX_SLOW_SECONDS": "1"}
    async with shop() as receiver:
        with process("payments", tmp_path, receiver.url, SANDBOX_WEBHOOK_DELAY_MS="600000", **soon) as (running, url):
            async with merchant(url) as client:
                await healthy(client)
                payment, slow = (await pay(client)).json(), (await pay(client, "tok_slow", "mug")).json()
                refunded = (await refund(client, payment, "2.00", "some")).json()
            running.kill()
        assert receiver.webhooks == []
        # Webhooks of before the kill still wait their ten minutes; that of the slow payment is made after it.
        with process("payments", tmp_path, receiver.url, **soon) as (running, url):
            async with merchant(url) as client:
                await healthy(client)
                assert (await pay(client)).json() == {**payment, "refunded": "2.00"}
                assert (await refund(client, payment, "2.00", "some")).json() == refunded
                await until(lambda: receiver.told() == [("payment.captured", "mug")])
                assert receiver.webhooks[0][1]["data"]["id"] == slow["id"]
                assert (await client.get("/health")).json()["webhooks_waiting"] == 2
            running.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(running.wait, 10) in (0, -signal.SIGTERM)


def test_the_same_seed_and_reference_decide_alike_and_rates_are_kept() -> None:
    references = [f"order-{number}" for number in range(2_000)]
    behaviour = Behaviour(seed=7, decline_rate=0.1, pending_rate=0.2)
    plans = [behaviour.plan("tok_ok", reference) for reference in references]
    also_dropping = Behaviour(seed=7, decline_rate=0.1, pending_rate=0.2, drop_rate=0.5)
    assert [also_dropping.plan("tok_ok", reference).status for reference in references] == [p.status for p in plans]
    assert [Behaviour(seed=8, decline_rate=0.1, pending_rate=0.2).plan("tok_ok", r) for r in references] != plans
    assert 150 < sum(plan.status == "declined" for plan in plans) < 250
    assert 330 < sum(plan.status == "pending" for plan in plans) < 470


def test_retries_back_off_from_a_fifth_of_a_second_to_half_a_minute_for_hours() -> None:
    waits = [retry_after(attempts) for attempts in range(1, 12)]
    assert waits[:4] == [0.2, 0.4, 0.8, 1.6]
    assert waits[-1] == 30
    assert sum(wait or 0 for wait in map(retry_after, range(1, 1_001))) > 8 * 3600
    assert retry_after(1_000) is None


@pytest.mark.parametrize(
    ("amount", "currency", "minor", "text"),
    [
        ("12.34", "GBP", 1234, "12.34"),
        ("5", "GBP", 500, "5.00"),
        ("0.01", "EUR", 1, "0.01"),
        ("1200", "JPY", 1200, "1200"),
        ("1.005", "KWD", 1005, "1.005"),
        ("999999999999.99", "GBP", 10**14 - 1, "999999999999.99"),
    ],
)
def test_money_is_exact(amount: str, currency: str, minor: int, text: str) -> None:
    assert to_minor(amount, currency) == minor
    assert to_text(minor, currency) == text


@pytest.mark.parametrize(
    ("amount", "currency"), [("1.5", "JPY"), ("1e3", "GBP"), ("٣", "GBP"), ("", "GBP"), ("0", "GBP")]
)
def test_what_is_not_money_is_refused(amount: str, currency: str) -> None:
    with pytest.raises(ProblemError):
        to_minor(amount, currency)
