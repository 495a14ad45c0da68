"""The operators' commands, on services that answer what a test wants: what is asked, what is shown, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from shared.cli.__main__ import main
from shared.cli.connection import CliSettings
from shared.topics import SERVICES
from tests.support.http import listening

ORDER = "018f0000-0000-7000-8000-000000000001"
LETTER: dict[str, Any] = {
    "offset": 7, "put_aside_at": "2026-03-01T12:00:00Z", "consumer": "join_answers",
    "topic": "isthmus.pricing.quote.v1", "partition": 3, "origin_offset": 41, "key": ORDER,
    "type": "isthmus.pricing.OrderPriced.v1", "event_id": None,
    "reason": "[red]odd[/]", "bytes": 2, "state": "waiting", "redriven": None,
}  # fmt: skip
DONE = {"at": "2026-03-02T12:00:00Z", "by": "olga", "outcome": "applied"}
OUTBOX: dict[str, Any] = {
    "rows": 3, "oldest_seconds": 61.5,
    "topics": [{"topic": "isthmus.order.order.v1", "rows": 3, "oldest_seconds": 61.5}],
    "relay": {"replica": "order-0", "active": True, "running": True,
              "blocked": [{"topic": "isthmus.order.order.v1", "key": ORDER, "reason": "too large for Kafka"}]},
}  # fmt: skip


class Services:
    """All services at one address; ``answers`` by method and path, anything else is a 404."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, Any, str | None]] = []
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.app = FastAPI()
        self.app.add_api_route("/{path:path}", self._answer, methods=["GET", "POST"])

    async def _answer(self, request: Request) -> JSONResponse:
        what = f"{request.method} {request.url.path}"
        body = await request.body()
        self.asked.append((what, orjson.loads(body) if body else None, request.headers.get("idempotency-key")))
        status, answer = self.answers.get(what, (404, {"title": "Not found"}))
        return JSONResponse(answer, status)

    def at(self, url: str, *names: str) -> None:
        for name in CliSettings.model_fields:
            self._monkeypatch.delenv(f"ISTHMUS_{name.upper()}", raising=False)
        for name in names:
            self._monkeypatch.setenv(f"ISTHMUS_{name.upper()}_URL", url)
        self._monkeypatch.setenv("ISTHMUS_TOKEN", "x")

    async def run(self, words: str) -> tuple[int, str, str]:
        """How ``isthmus`` ends with these words, and what it prints to either side."""
        self._monkeypatch.setattr("sys.argv", ["isthmus", *words.split()])

        def code() -> int:
            try:
                main()
            except SystemExit as end:
                return int(end.code or 0)
            return 0

        ended = await asyncio.to_thread(code)
        out, error = self._capsys.readouterr()
        return ended, out, error


@pytest.fixture
async def services(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncGenerator[Services]:  # fmt: skip
    made = Services(monkeypatch, capsys)
    async with listening(made.app) as url:
        made.at(url, *SERVICES)
        yield made


async def test_dead_letters_of_all_services_are_listed_though_one_is_away(
    services: Services, monkeypatch: pytest.MonkeyPatch
):
    services.answers["GET /admin/dlq"] = (
        200,
        {"items": [LETTER, {**LETTER, "offset": 6, "redriven": DONE}], "next": None},
    )
    code, out, _ = await services.run("dlq list")
    assert (code, out.count("OrderPriced")) == (0, 2 * len(SERVICES))
    assert "[red]odd[/]" in out
    assert "by olga" in " ".join(out.split())
    code, out, _ = await services.run("dlq list --waiting --json")
    assert {one["offset"] for one in orjson.loads(out)} == {7}
    monkeypatch.setenv("ISTHMUS_PRICING_URL", "http://127.0.0.1:9")
    code, out, error = await services.run("dlq list --json")
    assert code == 1
    assert error.startswith("isthmus: the pricing service does not answer at http://127.0.0.1:9 ")
    assert {one["service"] for one in orjson.loads(out)} == set(SERVICES) - {"pricing"}
    code, out, error = await services.run("dlq list --service order --json")
    assert (code, len(orjson.loads(out)), error) == (0, 2, "")


async def test_a_dead_letter_is_shown_with_what_it_holds_as_it_is(services: Services):
    headers = [{"name": "ce_id", "text": "x", "base64": None}, {"name": "odd", "text": None, "base64": "/w=="}]
    payload = {"text": '{"a": "[bold]b"}', "base64": None}
    services.answers["GET /admin/dlq/7"] = 200, {**LETTER, "headers": headers, "payload": payload}
    code, out, _ = await services.run("dlq show order 7")
    assert code == 0
    assert '{"a": "[bold]b"}' in out
    assert "base64 /w==" in out
    assert "isthmus.pricing.quote.v1, partition 3, offset 41" in out


async def test_a_redrive_says_what_came_of_it(services: Services):
    services.answers["POST /admin/dlq/7/redrive"] = 200, {"outcome": "already_applied"}
    assert await services.run("dlq redrive order 7") == (0, "It was applied already.\n", "")
    services.answers["POST /admin/dlq/7/redrive"] = 409, {"title": "Cannot be redriven", "detail": "ValueError: no"}
    assert await services.run("dlq redrive order 7") == (
        1, "", "isthmus: order: 409 Cannot be redriven; ValueError: no\n",
    )  # fmt: skip


async def test_redriving_all_asks_for_what_was_meant_and_ends_with_1_while_some_are_refused(services: Services):
    report: dict[str, Any] = {
        "applied": 2,
        "already_applied": 0,
        "failed": 0,
        "held_back": 0,
        "failures": [],
        "more": True,
    }
    services.answers["POST /admin/dlq/redrive"] = 200, report
    code, out, _ = await services.run("dlq redrive order --all --consumer join_answers --type OrderPriced")
    assert (code, out) == (0, "2 applied\nThere are more: say it again.\n")
    assert services.asked[-1][1] == {"consumer": "join_answers", "type": "OrderPriced"}
    failure = {"offset": 7, "consumer": "join_answers", "key": ORDER, "reason": "ValueError: no"}
    services.answers["POST /admin/dlq/redrive"] = 200, {**report, "failed": 1, "held_back": 2, "failures": [failure]}
    code, out, error = await services.run("dlq redrive order --all")
    assert (code, error) == (1, "isthmus: order: 3 dead letters still wait, 1 of them were refused again\n")
    assert "ValueError: no" in out


@pytest.mark.parametrize(
    "words",
    ["dlq redrive order", "dlq redrive order 7 --all", "dlq redrive order 7 --consumer c", "dlq redrive sales 7",
     "dlq show order seven", "process cancel 7"],
)  # fmt: skip
async def test_wrong_usage_asks_for_nothing(services: Services, words: str):
    assert (await services.run(words))[0] == 2
    assert services.asked == []


async def test_outboxes_show_what_waits_and_what_is_blocked(services: Services):
    services.answers["GET /admin/outbox/status"] = 200, OUTBOX
    _, out, _ = await services.run("outbox status --service order")
    text = " ".join(out.split())
    assert "order isthmus.order.order.v1 3 1 min 02 s order-0" in text
    assert "too large for Kafka" in text
    services.answers["GET /admin/outbox/status"] = 200, {
        "rows": 0, "oldest_seconds": 0, "topics": [],
        "relay": {"replica": "order-1", "active": False, "running": False, "blocked": None},
    }  # fmt: skip
    _, out, _ = await services.run("outbox status --service order")
    assert out.splitlines()[-1].split() == ["order", "0", "none"]


async def test_a_stuck_order_is_shown_retried_and_cancelled(services: Services):
    piece = {"what": "parcel", "parcel": 2, "refund_id": None, "state": "booking", "attempts": 9}
    one = {**piece, "order_id": ORDER, "waits_for": "the carrier", "due_at": None, "since": "2026-03-01T12:00:00Z"}
    services.answers |= {
        "GET /admin/process/stuck": (200, {"items": [one]}),
        f"POST /admin/process/{ORDER}/retry": (200, {"order_id": ORDER, "woken": [piece]}),
        f"POST /admin/process/{ORDER}/cancel": (202, {"state": "confirmed", "cancellation_pending": True}),
        "GET /orders": (200, {"items": [{"order_id": ORDER}]}),
        f"GET /orders/{ORDER}": (200, {"order_id": ORDER}),
    }
    _, out, _ = await services.run("process stuck")
    assert "parcel 2 booking 9 2026-03-01 12:00:00 the carrier" in " ".join(out.split())
    assert await services.run("process retry shop-1") == (0, "parcel 2, booking: asked now\n", "")
    services.asked.clear()
    code, out, _ = await services.run(f"process cancel {ORDER} --reason fraud")
    assert (code, out) == (0, "The carrier is asked to give the parcels back; its word decides.\n")
    ((what, body, key),) = services.asked
    assert (what, body) == (f"POST /admin/process/{ORDER}/cancel", {"reason": "fraud"})
    assert key
