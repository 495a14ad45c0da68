"""More orders than can be served: some are refused, none is lost, and those who wait keep nobody out."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx2
import orjson
import pytest

from services.order import bulk, signals
from services.order.views import Observer
from shared.overload import Gate
from shared.postgres import Database
from tests.support.kernel import value
from tests.support.shop import body, counter, gate_of, open_shop, paying_order


def orders(number: int, first: int = 0) -> list[dict[str, Any]]:
    return [body(f"shop-{n}") for n in range(first, first + number)]


async def count(database: Database) -> int:
    return await value(database, "SELECT count(*) FROM orders")


async def has(database: Database, number: int) -> None:
    """Until so many orders are there."""
    async with asyncio.timeout(20):
        while await count(database) < number:  # noqa: ASYNC110 - looked up, not signalled
            await asyncio.sleep(0.02)


async def look(gate: Gate, database: Database, observer: Observer | None = None) -> Observer:
    observer = observer or Observer(gate)
    async with database.reading() as db:
        await observer.look(db)
    return observer


async def place_many(client: httpx2.AsyncClient, lines: list[dict[str, Any]], **params: str) -> httpx2.Response:
    return await client.post("/orders/bulk", params=params, content=b"\n".join(orjson.dumps(line) for line in lines))


def reports(answer: httpx2.Response) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in answer.content.splitlines()]


async def test_a_crowd_is_served_in_part_and_every_201_is_there(database: Database):
    await open_shop(database)
    gate = gate_of(in_flight=5, turns=2)
    async with counter(database, gate=gate) as client:
        answers = await asyncio.gather(*(client.post("/orders", json=one) for one in orders(40)))
        taken = [answer.json()["order_id"] for answer in answers if answer.status_code == 201]
        assert 5 <= len(taken) < 40
        refused = [answer for answer in answers if answer.status_code == 503]
        assert len(taken) + len(refused) == 40
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert {answer.json()["type"] for answer in refused} == {"urn:isthmus:problem:overloaded"}
        assert await count(database) == len(taken)
        again = await client.post("/orders", json=body("shop-39"))
        assert again.status_code in (200, 201)


async def test_too_many_open_orders_close_the_gate_for_new_ones_only_until_they_are_answered(database: Database):
    await open_shop(database)
    gate = gate_of(backlog=3)
    async with counter(database, gate=gate) as client:
        placed = [await client.post("/orders", json=one) for one in orders(3)]
        order_id = placed[0].json()["order_id"]
        assert (await client.post("/orders", json=body("one-more"))).status_code == 503
        assert (await place_many(client, orders(2, 10))).status_code == 503
        assert (await client.post("/orders", json=body("shop-0"))).status_code == 503  # also what is there already
        assert (await client.get(f"/orders/{order_id}")).status_code == 200
        observer = await look(gate, database)
        assert (await client.post("/orders", json=body("one-more"))).status_code == 503
        cancelled = await client.post(f"/orders/{order_id}/cancellations", json={}, headers={"Idempotency-Key": "1"})
        assert cancelled.status_code == 200
        await look(gate, database, observer)
        assert (await client.post("/orders", json=body("one-more"))).status_code == 201


async def test_orders_wait_until_their_payment_was_asked_for_and_not_for_the_buyer(database: Database):
    await open_shop(database)
    gate = gate_of()
    async with counter(database, gate=gate) as client:
        await client.post("/orders", json=body("waits"))
        await paying_order(database)
    await look(gate, database)
    assert gate.backlog == 2
    async with database.transaction() as tx:
        await tx.db.execute("UPDATE payments SET state = 'action_required'")
    await look(gate, database)
    assert gate.backlog == 1


async def test_what_came_is_counted_over_all_replicas(database: Database):
    await open_shop(database)
    seen: list[tuple[int, int]] = []

    class Listening(Gate):
        def observed(self, waiting: int, new: int, now: float) -> None:
            seen.append((waiting, new))

    observer = Observer(Listening(gate_of()._limits))
    async with counter(database) as client, counter(database) as other:
        await client.post("/orders", json=body("first"))
        await look(observer.gate, database, observer)
        await client.post("/orders", json=body("here"))
        await other.post("/orders", json=body("there"))
        for _ in range(2):
            await look(observer.gate, database, observer)
    assert seen == [(1, 0), (3, 2), (3, 0)]


async def test_who_waits_for_the_outcome_keeps_nobody_out(database: Database, monkeypatch: pytest.MonkeyPatch):
    await open_shop(database)
    async with counter(database, gate=gate_of(in_flight=1)) as client:

        async def patient(reference: str) -> httpx2.Response:
            return await client.post("/orders", json=body(reference), headers={"Prefer": "wait=3"})

        first = asyncio.create_task(patient("first"))
        await has(database, 1)
        await asyncio.sleep(0.1)
        assert (await client.post("/orders", json=body("second"))).status_code == 201
        monkeypatch.setattr(signals, "MAX_WAITING", 1)
        third = await patient("third")
        assert (third.status_code, third.headers.get("Preference-Applied")) == (201, None)
        assert (await first).headers["Preference-Applied"] == "wait=3"


# -- bulk --------------------------------------------------------------------------------------------------------------


async def test_bulk_goes_on_when_the_gate_opens_again(database: Database):
    await open_shop(database)
    gate = gate_of(backlog=150)
    async with counter(database, gate=gate) as client:
        sending = asyncio.create_task(place_many(client, orders(250)))
        await has(database, 200)
        await asyncio.sleep(0.2)
        assert (await count(database), sending.done()) == (200, False)
        gate.observed(0, 0, 1)
        answer = await sending
    assert Counter(one["status"] for one in reports(answer)) == {201: 250}
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize("on_error", ["skip", "stop"])
async def test_bulk_that_finds_the_gate_closed_reports_the_rest_as_not_taken(
    database: Database, monkeypatch: pytest.MonkeyPatch, on_error: str
):
    monkeypatch.setattr(bulk, "PATIENCE", 0.1)
    await open_shop(database)
    gate = gate_of(backlog=150)
    async with counter(database, gate=gate) as client:
        answer = await place_many(client, orders(450), on_error=on_error)
        told = reports(answer)
        assert [one["row"] for one in told] == list(range(1, 451))
        assert [one["status"] for one in told] == [201] * 200 + [503] * 250
        assert {one["type"] for one in told[200:]} == {"urn:isthmus:problem:overloaded"}
        assert int(answer.headers["Retry-After"]) >= 1
        assert await count(database) == 200
        gate.observed(0, 0, 1)
        monkeypatch.setattr(bulk, "PATIENCE", 30)
        rest = asyncio.create_task(place_many(client, orders(250, 200)))
        await has(database, 400)
        gate.observed(0, 0, 2)
        assert Counter(one["status"] for one in reports(await rest)) == {201: 250}
    assert await count(database) == 450


async def test_only_so_many_bulk_requests_at_once(database: Database):
    await open_shop(database)
    gate = gate_of(backlog=1, streams=2)
    async with counter(database, gate=gate) as client:
        running = [asyncio.create_task(place_many(client, orders(150, 1000 * n))) for n in range(2)]
        await has(database, 100)
        gate.observed(0, 0, 1)
        assert (await place_many(client, orders(1, 9000))).status_code == 503
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        gate.observed(0, 0, 2)
        assert (await place_many(client, orders(1, 9000))).status_code == 200
