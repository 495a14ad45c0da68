"""The sandbox carrier, driven as a merchant would: over a real port, with a real receiver of webhooks."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from deploy.local.carrier.__main__ import assemble
from deploy.local.carrier.behaviour import Behaviour, Settings, price_of
from deploy.local.carrier.models import Recipient
from tests.support.http import listening
from tests.unit.local.outside import SECRET, healthy, merchant, process, shop, until

Parcel = dict[str, Any]

ANNA = {"name": "Anna Ash", "street": "Elm Row 1", "city": "Ulm", "postal_code": "89073", "country": "DE"}
QUICK: dict[str, Any] = {"collect_seconds": 0.05, "transit_seconds": 0.1, "delay_seconds": 0.1, "timeout_seconds": 0.3}
STILL: dict[str, Any] = {"moves_by_itself": False}


@asynccontextmanager
async def carrier(path: Path, webhook_url: str | None = None, **rates: Any) -> AsyncGenerator[httpx2.AsyncClient]:
    settings = Settings(
        database=path / "carrier.db",
        api_key=SecretStr("merchant"),
        webhook_secret=SecretStr(SECRET),
        webhook_url=webhook_url,
    )
    app = assemble(settings, Behaviour.model_validate({**QUICK, **rates}))
    async with listening(app) as url, merchant(url) as client:
        yield client


def order(reference: str = "lamp", **changes: Any) -> dict[str, Any]:
    return {"reference": reference, "from": "oslo", "recipient": ANNA, "weight": 1200, "units": 3} | changes


async def book(client: httpx2.AsyncClient, reference: str = "lamp", **changes: Any) -> httpx2.Response:
    headers = {"idempotency-key": reference}
    return await client.post("/v1/parcels", json=order(reference, **changes), headers=headers, timeout=5)


async def booked(client: httpx2.AsyncClient, reference: str = "lamp") -> Parcel:
    answer = await book(client, reference)
    assert answer.status_code == 201
    return answer.json()


async def move(client: httpx2.AsyncClient, parcel: Parcel, status: str) -> httpx2.Response:
    return await client.post(f"/sandbox/parcels/{parcel['id']}/status", json={"status": status})


async def now(client: httpx2.AsyncClient, parcel: Parcel) -> Parcel:
    return (await client.get(f"/v1/parcels/{parcel['id']}")).json()


async def test_a_booked_parcel_has_a_number_a_label_a_promise_and_a_price(tmp_path: Path) -> None:
    async with carrier(tmp_path, **STILL) as client:
        parcel = await booked(client)
        assert parcel["status"] == "booked"
        assert parcel["price"] == {"amount": "4.90", "currency": "GBP"}
        assert parcel["promised_at"] > parcel["created_at"]
        assert (parcel["from"], parcel["weight"], parcel["units"]) == ("oslo", 1200, 3)
        assert await now(client, parcel) == parcel
        label = (await client.get(parcel["label_url"])).text
        for printed in (parcel["tracking_number"], "Anna Ash", "Elm Row 1", "89073 Ulm", "DE", "lamp"):
            assert printed in label
        assert (await client.get("/v1/parcels", params={"reference": "lamp"})).json()["data"] == [parcel]
        assert (await client.get("/v1/parcels", params={"reference": "mug"})).json()["data"] == []


async def test_a_parcel_moves_by_itself_and_every_step_is_told_once(tmp_path: Path) -> None:
    async with shop() as receiver, carrier(tmp_path, receiver.url) as client:
        parcel = await booked(client)
        await until(lambda: len(receiver.webhooks) == 3)
        assert set(receiver.told()) == {(f"parcel.{s}", "lamp") for s in ("collected", "in_transit", "delivered")}
        told = {webhook["type"]: webhook["data"] for _, webhook in receiver.webhooks}
        assert [told[f"parcel.{s}"]["status"] for s in ("collected", "in_transit", "delivered")] == [
            *("collected", "in_transit", "delivered")
        ]
        assert told["parcel.collected"]["at"] < told["parcel.in_transit"]["at"] < told["parcel.delivered"]["at"]
        assert told["parcel.delivered"]["recipient"] == {**ANNA, "region": None, "phone": None}
        assert [told[f"parcel.{s}"]["signed_by"] for s in ("in_transit", "delivered")] == [None, "Anna Ash"]
        end = await now(client, parcel)
        assert (end["status"], end["delivered_at"]) == ("delivered", told["parcel.delivered"]["at"])
        assert "recipient" not in end
        assert (await client.get("/health")).json() == {"status": "ok", "webhooks_waiting": 0}


async def test_a_late_parcel_is_announced_and_comes_after_its_promise(tmp_path: Path) -> None:
    async with shop() as receiver, carrier(tmp_path, receiver.url, delay_rate=1, promise_seconds=0.3) as client:
        parcel = await booked(client)
        await until(lambda: ("parcel.delivered", "lamp") in receiver.told())
        assert ("parcel.delayed", "lamp") in receiver.told()
        end = await now(client, parcel)
        assert end["promised_at"] == parcel["promised_at"] < end["expected_at"] <= end["delivered_at"]


async def test_a_lost_parcel_is_told_as_lost_and_never_delivered(tmp_path: Path) -> None:
    async with shop() as receiver, carrier(tmp_path, receiver.url, loss_rate=1, delay_rate=1) as client:
        parcel = await booked(client)
        await until(lambda: ("parcel.lost", "lamp") in receiver.told())
        await asyncio.sleep(0.3)
        end = await now(client, parcel)
        assert (end["status"], end["delivered_at"]) == ("lost", None)
        assert not {"parcel.delivered", "parcel.delayed"} & {kind for kind, _ in receiver.told()}


async def test_parcels_that_stay_move_when_told_forward_only(tmp_path: Path) -> None:
    async with shop() as receiver, carrier(tmp_path, receiver.url, **STILL) as client:
        one, two = await booked(client, "lamp"), await booked(client, "mug")
        await asyncio.sleep(0.3)
        assert (await now(client, one))["status"] == "booked"
        assert (await move(client, one, "delivered")).json()["status"] == "delivered"
        for status in ("collected", "in_transit", "delayed", "delivered", "lost"):
            assert (await move(client, one, status)).status_code == 409
        assert (await move(client, two, "delayed")).json()["status"] == "booked"
        assert (await move(client, two, "delayed")).status_code == 409
        assert (await move(client, two, "in_transit")).json()["status"] == "in_transit"
        assert (await move(client, two, "collected")).status_code == 409
        assert (await move(client, two, "lost")).json()["status"] == "lost"
        assert (await move(client, {"id": "par_x"}, "lost")).status_code == 404
        assert (await move(client, one, "cancelled")).status_code == 422
        await until(lambda: len(receiver.webhooks) == 4)
        assert set(receiver.told()) == {
            ("parcel.delivered", "lamp"),
            *((f"parcel.{status}", "mug") for status in ("delayed", "in_transit", "lost")),
        }


async def test_a_parcel_held_back_catches_up_step_by_step_when_parcels_move_again(tmp_path: Path) -> None:
    at_once: dict[str, Any] = {"collect_seconds": 0, "transit_seconds": 0, "promise_seconds": 0, "delay_seconds": 0.2}
    async with shop() as receiver, carrier(tmp_path, receiver.url, **STILL, **at_once, delay_rate=1) as client:
        parcel = await booked(client)
        await asyncio.sleep(0.3)  # by now even the late delivery is due
        await client.put("/sandbox/behaviour", json={"moves_by_itself": True})
        await until(lambda: len(receiver.webhooks) == 4)
        told = sorted((webhook["data"]["at"], webhook["type"]) for _, webhook in receiver.webhooks)
        assert [kind for _, kind in told] == [
            *("parcel.collected", "parcel.in_transit", "parcel.delayed", "parcel.delivered")
        ]
        assert len({at for at, _ in told}) == 4
        end = await now(client, parcel)
        assert parcel["promised_at"] < end["expected_at"] <= end["delivered_at"]


async def test_a_parcel_put_off_by_hand_comes_by_itself_later(tmp_path: Path) -> None:
    async with shop() as receiver, carrier(tmp_path, receiver.url, promise_seconds=0, delay_seconds=0.6) as client:
        parcel = await booked(client)
        put_off = (await move(client, parcel, "delayed")).json()
        await until(lambda: ("parcel.delivered", "lamp") in receiver.told())
        assert (await now(client, parcel))["delivered_at"] >= put_off["expected_at"]


async def test_a_parcel_can_be_cancelled_until_it_is_collected(tmp_path: Path) -> None:
    async with shop() as receiver, carrier(tmp_path, receiver.url, collect_seconds=0.3) as client:
        parcel, other = await booked(client), await booked(client, "mug")
        for _ in range(2):
            answer = await client.post(f"/v1/parcels/{parcel['id']}/cancel")
            assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        await until(lambda: ("parcel.collected", "mug") in receiver.told())
        late = await client.post(f"/v1/parcels/{other['id']}/cancel")
        assert (late.status_code, late.headers["content-type"]) == (409, "application/problem+json")
        await until(lambda: ("parcel.delivered", "mug") in receiver.told())
        assert (await client.post(f"/v1/parcels/{other['id']}/cancel")).status_code == 409
        assert (await now(client, parcel))["status"] == "cancelled"
        assert (await move(client, parcel, "collected")).status_code == 409
        assert "lamp" not in {reference for _, reference in receiver.told()}


async def test_one_key_is_one_parcel_however_often_and_however_concurrently_it_is_sent(tmp_path: Path) -> None:
    async with carrier(tmp_path) as client:
        answers = await asyncio.gather(*(book(client) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
        assert len({answer.json()["id"] for answer in answers}) == 1
        others: list[dict[str, Any]] = [{"units": 4}, {"from": "ulm"}, {"recipient": {**ANNA, "street": "Elm Row 2"}}]
        for other in others:
            answer = await book(client, **other)
            assert (answer.status_code, answer.json()["title"]) == (422, "Idempotency key reused")


async def test_an_answer_may_come_late_or_never_and_still_there_is_one_parcel(tmp_path: Path) -> None:
    async with carrier(tmp_path, drop_rate=1) as client:
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await book(client)
        assert (await book(client)).status_code == 200
        await client.put("/sandbox/behaviour", json={"timeout_rate": 1, "drop_rate": 0})
        with pytest.raises(httpx2.ReadTimeout):
            await client.post("/v1/parcels", json=order("mug"), headers={"idempotency-key": "mug"}, timeout=0.1)
        assert (await book(client, "mug")).status_code == 200
        log = (await client.get("/v1/parcels")).json()["data"]
        assert [parcel["reference"] for parcel in log] == ["lamp", "mug"]


@pytest.mark.parametrize(
    ("changes", "headers", "status"),
    [
        ({"recipient": {**ANNA, "city": "Nowhere"}}, {"idempotency-key": "a"}, 422),
        ({"recipient": {**ANNA, "country": "Germany"}}, {"idempotency-key": "a"}, 422),
        ({"recipient": {"name": "Anna"}}, {"idempotency-key": "a"}, 422),
        ({"units": 0}, {"idempotency-key": "a"}, 422),
        ({"weight": -1}, {"idempotency-key": "a"}, 422),
        ({}, {}, 400),
        ({}, {"idempotency-key": "a", "authorization": "Bearer thief"}, 401),
    ],
)
async def test_a_refused_booking_is_a_problem_and_leaves_nothing(
    tmp_path: Path, changes: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    async with carrier(tmp_path) as client:
        answer = await client.post("/v1/parcels", json=order(**changes), headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (status, status)
        assert answer.headers["content-type"] == "application/problem+json"
        assert (await client.get("/v1/parcels")).json() == {"data": [], "next_cursor": None}


async def test_addresses_are_refused_at_a_rate_and_served_again_when_it_is_taken_back(tmp_path: Path) -> None:
    async with carrier(tmp_path, refuse_rate=1) as client:
        answer = await book(client)
        assert (answer.status_code, answer.json()["title"]) == (422, "Address not served")
        changed = (await client.put("/sandbox/behaviour", json={"refuse_rate": 0})).json()
        assert changed == (await client.get("/sandbox/behaviour")).json()
        assert (await book(client)).status_code == 201


async def test_the_log_is_paged_in_the_order_of_booking(tmp_path: Path) -> None:
    async with carrier(tmp_path) as client:
        for number in range(5):
            await booked(client, f"lamp-{number}")
        seen: list[str] = []
        cursor: str | None = "0"
        while cursor is not None:
            page = (await client.get("/v1/parcels", params={"cursor": cursor, "limit": 2})).json()
            seen += [parcel["reference"] for parcel in page["data"]]
            cursor = page["next_cursor"]
        assert seen == [f"lamp-{number}" for number in range(5)]


async def test_webhooks_are_doubled_and_overtaken_when_asked(tmp_path: Path) -> None:
    async with shop() as receiver, carrier(tmp_path, receiver.url, **STILL) as client:
        parcel = await booked(client)
        troubles = {"webhook_duplicate_rate": 1, "webhook_reorder_rate": 1}
        await client.put("/sandbox/behaviour", json=troubles)
        await move(client, parcel, "collected")
        await client.put("/sandbox/behaviour", json={})
        await move(client, parcel, "in_transit")
        await until(lambda: len(receiver.webhooks) == 3)
        collected = ("parcel.collected", "lamp")
        assert receiver.told() == [("parcel.in_transit", "lamp"), collected, collected]
        assert receiver.webhooks[1] == receiver.webhooks[2]


async def test_a_lost_webhook_never_comes_though_the_parcel_moves(tmp_path: Path) -> None:
    async with shop() as receiver, carrier(tmp_path, receiver.url, webhook_loss_rate=1) as client:
        parcel = await booked(client)
        async with asyncio.timeout(10):
            while (await now(client, parcel))["status"] != "delivered":
                pass
        assert (await client.get("/health")).json()["webhooks_waiting"] == 0
        assert receiver.told() == []


async def test_a_notice_is_sent_again_word_for_word_and_only_after_it_happened(tmp_path: Path) -> None:
    async with shop() as receiver, carrier(tmp_path, receiver.url, **STILL) as client:
        parcel = await booked(client)
        notices, collected = f"/sandbox/parcels/{parcel['id']}/notices", {"type": "parcel.collected"}
        assert (await client.post(notices, json=collected)).status_code == 409
        for status in ("collected", "delivered"):
            await move(client, parcel, status)
            await until(lambda: bool(receiver.webhooks))
        await until(lambda: len(receiver.webhooks) == 2)
        assert (await client.post(notices, json=collected)).status_code == 202
        await until(lambda: len(receiver.webhooks) == 3)
        first = next(one for one in receiver.webhooks if one[1]["type"] == "parcel.collected")
        assert receiver.told()[-1] == ("parcel.collected", "lamp")
        assert receiver.webhooks[-1][1]["data"] == first[1]["data"]
        assert receiver.webhooks[-1][0] != first[0]


async def test_parcels_go_on_moving_after_kill_9(tmp_path: Path) -> None:
    """One is collected before the kill, one was due meanwhile; both end as if nothing had happened."""
    steps = {"SANDBOX_COLLECT_SECONDS": "0.6", "SANDBOX_TRANSIT_SECONDS": "0.2"}
    async with shop() as receiver:
        with process("carrier", tmp_path, receiver.url, **steps) as (running, url):
            async with merchant(url) as client:
                await healthy(client)
                parcel = await booked(client)
                moved = await booked(client, "mug")
                await move(client, moved, "collected")
            running.kill()
        await asyncio.sleep(0.8)
        with process("carrier", tmp_path, receiver.url, **steps) as (running, url):
            async with merchant(url) as client:
                await healthy(client)
                await until(lambda: {("parcel.delivered", "lamp"), ("parcel.delivered", "mug")} <= set(receiver.told()))
                again = await book(client)
                assert (again.status_code, again.json()["id"]) == (200, parcel["id"])
                mine = [webhook["data"] for _, webhook in receiver.webhooks if webhook["data"]["reference"] == "lamp"]
                assert [one["status"] for one in sorted(mine, key=lambda one: one["at"])] == [
                    *("collected", "in_transit", "delivered")
                ]


def test_the_same_seed_and_reference_decide_alike_and_rates_are_kept() -> None:
    references = [f"parcel-{number}" for number in range(2_000)]
    behaviour, anna = Behaviour(seed=7, loss_rate=0.1, delay_rate=0.2, refuse_rate=0.1), Recipient.model_validate(ANNA)
    ends = [behaviour.moves(reference, 0)[-1] for reference in references]
    also_dropping = behaviour.with_changes(Behaviour(drop_rate=0.5, webhook_loss_rate=0.5))
    assert [also_dropping.moves(reference, 0)[-1] for reference in references] == ends
    assert [Behaviour(seed=8, loss_rate=0.1, delay_rate=0.2).moves(r, 0)[-1] for r in references] != ends
    assert 150 < sum(kind == "lost" for kind, _ in ends) < 250
    assert 300 < sum(kind == "delivered" and at == 5 + 3 for kind, at in ends) < 420
    assert 150 < sum(not behaviour.serves(reference, anna) for reference in references) < 250


@pytest.mark.parametrize(
    ("grams", "minor"), [(None, 440), (0, 440), (1, 440), (1000, 440), (1001, 490), (20_000, 1390)]
)
def test_a_price_counts_each_kilogram_begun(grams: int | None, minor: int) -> None:
    assert price_of(grams) == minor
