"""The load is open: what is sent, and when, is settled before, whatever the server does."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from bench.machine import cpu_of_self, used
from bench.perf import frozen, moving
from bench.perf.http import Request, Run, drive
from bench.perf.measuring import bounded
from bench.perf.orders import SKUS, Load, build
from bench.perf.sender import Sent, told
from bench.perf.stage import Trial
from services.order.intake import OrderBody
from shared.topics import TOPICS

ANN, BEA = "00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"


def body(request: Request) -> bytes:
    return request.content.partition(b"\r\n\r\n")[2]


def test_the_schedule_is_steady_and_the_same_for_the_same_seed():
    load = Load("run", 1, (ANN, BEA), rate=50, seconds=2)
    requests = build(load, "localhost", 80, "token")
    assert [request.due for request in requests] == [number / 50 for number in range(100)]
    assert [one.content for one in requests] == [one.content for one in build(load, "localhost", 80, "token")]
    assert body(requests[0]) != body(build(Load("run", 2, (ANN, BEA), rate=50, seconds=2), "localhost", 80, "")[0])


def test_an_order_is_one_that_the_platform_takes():
    orders = [orjson.loads(body(one)) for one in build(Load("run", 1, (ANN,), rate=10, seconds=1), "localhost", 80, "")]
    read = [OrderBody.model_validate(one) for one in orders]
    assert all(len({line.sku for line in one.lines} & set(SKUS)) == 3 for one in read)
    assert {one.payment.method for one in read} == {"prepaid"}
    (card,) = build(Load("run", 1, (ANN,), number=1, card=True), "localhost", 80, "")
    assert orjson.loads(body(card))["payment"] == {"method": "card", "token": "tok_ok"}


def test_rows_of_a_bulk_request_are_due_with_it():
    load = Load("run", 1, (ANN,), rate=100, seconds=2.5, rows=100)
    requests = build(load, "localhost", 80, "token")
    assert [request.due for request in requests] == [0.0, 1.0, 2.0]
    assert [len(body(request).splitlines()) for request in requests] == [100, 100, 50]
    assert [load.due(number) for number in (0, 99, 100, 249)] == [0.0, 0.0, 1.0, 2.0]


def test_everybody_at_once_is_everybody_at_the_start():
    assert {one.due for one in build(Load("run", 1, (), number=20, sku="lamp"), "localhost", 80, "")} == {0.0}


def test_answers_are_told_order_by_order():
    load = Load("run", 1, (ANN,), rate=100, seconds=0.05, rows=3)
    said = [{"status": 201, "order_id": "a"}, {"status": 503, "detail": "too much"}, {"status": 200, "order_id": "c"}]
    good = Request(0.0, b"", 200, b"\n".join(map(orjson.dumps, said)), 1.0)
    sent = told(load, Run([good, Request(0.03, b"", 0, b"", 9.0)], slips=[0.001, 0.002]))
    assert sent.order_ids == ["a", None, "c", None, None]
    assert sent.answered == [1.0, 1.0, 1.0, 9.0, 9.0]
    assert sent.refused == {"503": 1, "0": 2}
    assert sent.slip_p99 == 0.002


async def test_a_slow_server_does_not_slow_the_clock():
    """One connection, answers after 50 ms, five requests due at once: the last one waited for all five."""
    arrived: list[float] = []

    async def slow(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        while await incoming.readuntil(b"\r\n\r\n"):
            arrived.append(time.monotonic())
            await asyncio.sleep(0.05)
            outgoing.write(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    requests = [Request(0.01, b"GET / HTTP/1.1\r\n\r\n") for _ in range(5)]
    start = time.monotonic()
    run = await drive("127.0.0.1", port, requests, start=start, connections=1, patience=5)
    server.close()
    assert [(one.status, one.body) for one in requests] == [(201, b"{}")] * 5
    assert requests[-1].answered - start > 0.25
    assert max(run.slips) < 0.05, "the requests were handed over when they were due, though none was answered"
    assert run.most_waiting == 5


async def test_a_connection_that_was_closed_meanwhile_costs_no_order():
    served = 0

    async def once(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        nonlocal served
        await incoming.readuntil(b"\r\n\r\n")
        served += 1
        if served == 2:
            outgoing.close()
            return
        outgoing.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await incoming.readuntil(b"\r\n\r\n")
        outgoing.close()

    server = await asyncio.start_server(once, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    requests = [Request(due, b"GET / HTTP/1.1\r\n\r\n") for due in (0.0, 0.05)]
    await drive("127.0.0.1", port, requests, start=time.monotonic(), connections=1, patience=5)
    server.close()
    # The first connection is closed under the second request; sent again, it meets another closed door.
    assert [(one.status, one.again) for one in requests] == [(200, False), (0, True)]


def test_the_frozen_list_is_about_this_platform():
    needs = frozen.load()
    names = {topic.name for topic in TOPICS}
    assert {name for topics in needs.writes.values() for name in topics} <= names
    assert {name for readers in needs.reads.values() for topics in readers.values() for name in topics} <= names
    assert needs.writes["order"]["isthmus.order.order.v1"].records >= 3  # placed, paid, confirmed
    assert needs.rows["order"]["orders"].inserted == 1
    assert moving.count(2.985, 500) == 1492


def trial(waits: list[float], *, how: str = "OrderConfirmed", refused: dict[str, int] | None = None) -> Trial:
    """100 orders a second for 20 s from time 1000 on, the first 10 s to warm up; each has waited so long."""
    load = Load("run", 1, (ANN,), rate=100, seconds=20)
    ids: list[str | None] = [str(number) for number in range(2000)]
    ended = {str(n): (how, 1000 + load.due(n) + wait) for n, wait in enumerate(waits)}
    return Trial(load, 1000.0, Sent(ids, [], refused or {}), ended, window=(1010.0, 1020.0))


def test_a_rate_holds_where_nobody_waits_longer_and_longer():
    assert bounded(trial([0.4] * 2000))[0]
    assert bounded(trial([5.0] * 2000))[0], "late is not the same as later and later"
    assert not bounded(trial([number / 2000 * 4 for number in range(2000)]))[0]
    assert not bounded(trial([0.1] * 1500))[0], "a quarter of them has not ended"


def test_a_rate_does_not_hold_where_orders_are_refused_or_rejected():
    assert "refused" in bounded(trial([0.1] * 2000, refused={"503": 1}))[1]
    assert bounded(trial([0.1] * 2000, how="OrderExpired")) == (False, "2000 ended without being confirmed")


def test_only_orders_of_the_window_are_measured_from_when_they_were_due():
    waits = trial([9.0] * 1000 + [0.2] * 1000).waits()
    assert len(waits) == 1000
    assert max(waits) < 0.21


def test_cpu_is_what_was_used_meanwhile():
    assert used({"order": 1.0, "kafka": 2.0}, {"order": 1.5, "kafka": 2.0}) == {"order": 0.5, "kafka": 0.0}
    with pytest.raises(ValueError, match="order started anew"):
        used({"order": 100.0}, {"order": 1.0})
    before = cpu_of_self()
    while cpu_of_self() < before + 0.05:
        sum(range(1000))
