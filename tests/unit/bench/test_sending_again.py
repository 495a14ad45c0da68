"""How the client of the platform sends again what was not taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import httpx2
import orjson
import pytest

from bench import platform
from bench.platform import Platform, pause_of
from deploy.local.stack import Stack


def answer(retry_after: str | None) -> httpx2.Response:
    return httpx2.Response(503, headers={} if retry_after is None else {"Retry-After": retry_after})


@pytest.mark.parametrize(
    ("asked", "least"), [("2", 2), ("60", 10), (None, 0.3), ("Mon, 01 Jan 2035 00:00:00 GMT", 0.3)]
)
def test_it_waits_as_long_as_it_is_asked_to_and_a_little_more_but_not_for_ever(asked: str | None, least: float):
    assert all(least <= pause_of(answer(asked)) <= least * 1.25 for _ in range(50))


async def test_of_bulk_orders_only_those_that_were_not_taken_are_sent_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "LONGEST_PAUSE", 0.01)
    sent: list[list[int]] = []

    def shop(request: httpx2.Request) -> httpx2.Response:
        """Takes two orders at a time, but never number 3."""
        orders = [orjson.loads(line)["n"] for line in request.content.splitlines()]
        sent.append(orders)
        statuses = [422 if n == 3 else 201 for n in orders[:2]] + [503] * len(orders[2:])
        reports = [{"row": row, "status": status} for row, status in enumerate(statuses, 1)]
        return httpx2.Response(
            200, headers={"Retry-After": "1"}, content=b"\n".join(orjson.dumps(report) for report in reports)
        )

    stack: Any = SimpleNamespace(url=lambda _name: "http://test", token=lambda _client: "token")  # pyright: ignore[reportUnknownLambdaType]
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(shop)) as client:
        reports = await Platform(cast(Stack, stack), client).place_bulk([{"n": n} for n in range(5)])
    assert sent == [[0, 1, 2, 3, 4], [2, 3, 4], [4]]
    assert [(one["row"], one["status"]) for one in reports] == [(1, 201), (2, 201), (3, 201), (4, 422), (5, 201)]
