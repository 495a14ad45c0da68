"""The gate over HTTP, on a real port: what is refused is answered at once, whatever its body; the rest is untouched."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import uvicorn
import uvloop
from fastapi import APIRouter, Request
from prometheus_client import REGISTRY

from shared import connections, door
from shared.app import build_app
from shared.connections import Connection, listening
from shared.health import Health
from shared.overload import Gate, Limits, leave

SHEDS = {"x-sheds": True}


@dataclass
class Shop:
    """An app with routes that shed and others that do not; orders are placed as soon as ``may_go`` is set."""

    gate: Gate
    may_go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    url: str = ""

    def router(self) -> APIRouter:
        router = APIRouter()

        @router.post("/orders", openapi_extra=SHEDS)
        async def place(body: dict[str, Any]) -> dict[str, Any]:
            self.begun.release()
            await self.may_go.wait()
            return body

        @router.post("/patient", openapi_extra=SHEDS)
        async def wait() -> str:
            leave()
            self.begun.release()
            await self.may_go.wait()
            return "done"

        @router.post("/bulk", openapi_extra=SHEDS | {"x-streamed": True})
        async def many(request: Request) -> int:
            self.begun.release()
            return sum([len(piece) async for piece in request.stream()])

        @router.get("/orders")
        async def look() -> str:
            return "looked"

        return router


@asynccontextmanager
async def open_shop(**limits: Any) -> AsyncGenerator[tuple[Shop, httpx2.AsyncClient]]:
    shop = Shop(Gate(Limits("tests", **{"backlog": 1000, "in_time": 10, "in_flight": 2, **limits})))
    app = build_app("shop", [shop.router()], Health(), gate=shop.gate)
    config = uvicorn.Config(app, port=0, http=Connection, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=listening(config)))
    while not server.started:  # noqa: ASYNC110 - uvicorn offers nothing to wait for
        await asyncio.sleep(0.005)
    shop.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        async with httpx2.AsyncClient(base_url=shop.url, timeout=10) as client:
            yield shop, client
    finally:
        shop.may_go.set()
        server.should_exit = True
        await serving


def shed(reason: str) -> float:
    return REGISTRY.get_sample_value("isthmus_requests_shed_total", {"reason": reason}) or 0.0


def refused(answer: httpx2.Response) -> bool:
    if answer.status_code != 503:
        return False
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert answer.headers["traceparent"]
    assert answer.json()["type"] == "urn:isthmus:problem:overloaded"
    return True


async def test_beyond_the_limit_is_refused_and_what_was_taken_is_served():
    async with open_shop(in_flight=2) as (shop, client):
        before = shed("in_flight")
        taken = [asyncio.create_task(client.post("/orders", json={"order": n})) for n in range(2)]
        for _ in taken:
            await shop.begun.acquire()
        assert all([refused(await client.post("/orders", json={"order": 3})) for _ in range(5)])
        assert shed("in_flight") == before + 5
        assert (await client.get("/orders")).json() == "looked"
        assert (await client.get("/health/live")).status_code == 200
        assert 'isthmus_http_request_seconds_count{method="POST",route="/orders",status="503"}' in (
            (await client.get("/metrics")).text
        )
        shop.may_go.set()
        assert [(await one).json() for one in taken] == [{"order": 0}, {"order": 1}]
        assert (await client.post("/orders", json={"order": 4})).json() == {"order": 4}


async def test_a_request_that_fails_or_goes_away_gives_its_place_back():
    async with open_shop(in_flight=1) as (shop, client):
        assert (await client.post("/orders", content=b"no json")).status_code == 422
        with pytest.raises(httpx2.ReadTimeout):
            await client.post("/orders", json={}, timeout=0.2)
        shop.may_go.set()
        await asyncio.sleep(0.1)
        assert (await client.post("/orders", json={"order": 1})).json() == {"order": 1}


async def test_who_only_waits_keeps_nobody_out():
    async with open_shop(in_flight=1) as (shop, client):
        patient = [asyncio.create_task(client.post("/patient")) for _ in range(3)]
        for _ in patient:
            await asyncio.wait_for(shop.begun.acquire(), 5)
        shop.may_go.set()
        assert [(await one).status_code for one in patient] == [200] * 3


async def talk(shop: Shop, *pieces: bytes, pause: float = 0) -> bytes:
    """Send to the shop, and return all it says until it closes the connection, or is silent for a while."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(shop.url.rpartition(":")[2]))
    heard = asyncio.create_task(hear(reader))
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
    except ConnectionError:  # it has heard enough
        pass
    finally:
        said = await heard
        writer.close()
    return said


async def hear(reader: asyncio.StreamReader) -> bytes:
    said = b""
    try:
        while data := await asyncio.wait_for(reader.read(65536), 0.6):
            said += data
    except TimeoutError:
        return said + b" (open)"
    except ConnectionError:
        return said
    return said


def head(*lines: str) -> bytes:
    return "\r\n".join(
        ["POST /orders HTTP/1.1", "Host: shop", "Content-Type: application/json", *lines, "", ""]
    ).encode()


def statuses(said: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", said)]


async def test_a_small_body_of_a_refused_request_is_passed_over_and_the_connection_goes_on():
    async with open_shop() as (shop, _):
        shop.gate.observed(1000, 0, 0)
        order = json.dumps({"note": "x" * 40_000}).encode()
        said = await talk(shop, head(f"Content-Length: {len(order)}"), order[:5], order[5:], head("Content-Length: 2"),
                          b"{}", pause=0.05)  # fmt: skip
        assert statuses(said) == [503, 503]
        assert said.endswith(b"(open)")
        assert b"connection: close" not in said


async def test_a_large_body_is_answered_before_it_came_and_the_connection_is_closed_when_it_has_been_heard():
    async with open_shop() as (shop, client):
        shop.gate.observed(1000, 0, 0)
        assert refused(await client.post("/orders", content=b"x" * 1_000_000))
        said = await talk(shop, head("Content-Length: 1000000"), b"x" * 600_000)
        assert statuses(said) == [503]
        assert b"connection: close" in said

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"x" * 10_000

        answer = await client.post("/bulk", content=pieces())
        assert refused(answer)
        assert answer.headers["Connection"] == "close"


async def test_clients_that_never_wait_are_slowed_down_but_none_for_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(door, "PER_SECOND", 40)
    monkeypatch.setattr(door, "BURST", 5)
    monkeypatch.setattr(door, "LONGEST_PAUSE", 0.5)
    async with open_shop() as (shop, client):
        shop.gate.observed(1000, 0, 0)
        loop, waits = asyncio.get_running_loop(), list[float]()

        async def hammer(until: float) -> None:
            while (begun := loop.time()) < until:
                assert refused(await client.post("/orders", json={}))
                waits.append(loop.time() - begun)

        begun = loop.time()
        await asyncio.gather(*(hammer(begun + 1) for _ in range(10)))
        assert 10 <= len(waits) <= 5 + 40 * (loop.time() - begun) + 10
        monkeypatch.setattr(door, "PER_SECOND", 1)
        begun = loop.time()
        crowd = await asyncio.gather(*(client.post("/orders", json={}) for _ in range(20)))
        assert all(refused(answer) for answer in crowd)
        assert loop.time() - begun < 10  # and not one a second


async def test_who_asks_before_sending_the_body_is_told_not_to():
    async with open_shop() as (shop, _):
        shop.gate.observed(1000, 0, 0)
        said = await talk(shop, head("Content-Length: 10", "Expect: 100-continue"))
        assert statuses(said) == [503]
        assert b"connection: close" in said
        assert not said.endswith(b"(open)")


async def test_a_body_that_does_not_come_loses_its_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(door, "BODY_SECONDS", 0.3)
    async with open_shop(in_flight=1) as (shop, client):
        shop.may_go.set()
        said = await talk(shop, head("Content-Length: 10"), b"{")
        assert statuses(said) == [408]
        trickle = await talk(shop, head("Content-Length: 10"), b"{", *[b" "] * 8, b"}", pause=0.1)
        assert statuses(trickle) == [408]
        assert (await client.post("/orders", json={})).status_code == 200


async def test_a_stream_may_last_as_long_as_something_comes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(door, "BODY_SECONDS", 0.3)

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x"
            await asyncio.sleep(0.1)

    async def silent() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(1)

    async with open_shop() as (_, client):
        assert (await client.post("/bulk", content=slowly())).json() == 5
        assert (await client.post("/bulk", content=silent())).status_code == 408


async def test_connections_that_say_nothing_are_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "SILENT_SECONDS", 0.3)
    async with open_shop() as (shop, client):
        shop.may_go.set()
        assert await talk(shop) == b""
        assert await talk(shop, b"POST /orders HTTP/1.1\r\nHost:") == b""
        first = await talk(shop, head("Content-Length: 2"), b"{}", b"POST /ord")  # the head of the second never ends
        assert statuses(first) == [200]
        assert not first.endswith(b"(open)")
        assert (await client.get("/orders")).status_code == 200


async def test_there_are_only_so_many_connections(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    async with open_shop() as (shop, _):
        assert sorted(await asyncio.gather(*(talk(shop) for _ in range(5)))) == [b"", b"", *[b" (open)"] * 3]


def test_new_connections_are_taken_promptly_while_the_process_has_much_to_do():
    turns = 0

    async def busy() -> None:
        nonlocal turns
        while True:
            turns += 1
            time.sleep(0.005)  # noqa: ASYNC251 - a handler that needs the processor
            await asyncio.sleep(0)

    async def crowd() -> int:
        async with open_shop() as (shop, _):
            shop.gate.observed(1000, 0, 0)
            working = asyncio.create_task(busy())
            begun = turns
            request = head("Content-Length: 2", "Connection: close") + b"{}"
            assert [statuses(said) for said in await asyncio.gather(*(talk(shop, request) for _ in range(48)))] == [
                [503]
            ] * 48
            working.cancel()
            return turns - begun

    assert uvloop.run(crowd()) < 48  # one turn for each, were there one socket
