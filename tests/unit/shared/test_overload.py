"""The gate: what it takes, what it refuses, and when it opens again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.overload import Gate, Limits, Refusal
from shared.problems import Problem


def gate(**limits: Any) -> Gate:
    return Gate(Limits("tests", **{"backlog": 1000, "in_time": 10, **limits}))


def reason(refusal: Refusal | None) -> str | None:
    return refusal.reason if refusal else None


def test_so_many_are_let_in_and_one_more_when_one_has_left():
    door = gate(in_flight=2)
    first, _ = door.enter(), door.enter()
    assert reason(door.refusal()) == "in_flight"
    first.leave()
    first.leave()  # twice is once
    assert door.refusal() is None
    door.enter()
    assert reason(door.refusal()) == "in_flight"


def test_streams_and_single_requests_do_not_take_each_others_places():
    door = gate(in_flight=1, streams=1)
    door.enter(stream=True)
    assert (reason(door.refusal(stream=True)), reason(door.refusal())) == ("streams", None)
    door.enter()
    assert reason(door.refusal()) == "in_flight"


def test_the_gate_closes_at_the_limit_and_opens_below_nine_tenths_of_it():
    door = gate()
    door.observed(999, 0, 0)
    assert door.refusal() is None
    door.added(1)  # before the next look
    assert reason(door.refusal()) == "backlog"
    door.observed(900, 100, 1)
    assert reason(door.refusal()) == "backlog"
    door.observed(899, 100, 2)
    assert door.refusal() is None


def test_what_is_added_by_others_counts_from_the_next_look_on():
    door = gate()
    door.added(500)
    door.observed(700, 700, 1)  # 500 of ours, 200 of another replica's
    assert door.backlog == 700


def test_who_is_refused_comes_back_when_there_is_room_at_the_pace_of_the_moment_but_not_all_at_once():
    door = gate(backlog=1000, in_time=10)  # 100/s
    door.observed(1900, 0, 0)
    waits = [refusal.retry_after for _ in range(200) if (refusal := door.refusal())]
    assert len(waits) == 200
    assert min(waits) >= 10  # 1,900 - 900, at 100/s
    assert max(waits) <= 20
    assert len(set(waits)) > 5
    door.observed(1_000_000, 0, 1)
    longest = door.refusal()
    assert longest is not None
    assert longest.retry_after == 60


def test_a_slow_pace_lowers_the_limit_to_what_is_done_in_time_and_a_better_one_raises_it():
    door = gate(backlog=1000, in_time=10)
    for second in range(60):
        door.observed(900, 30, second)  # 30 come, and 30 are done
    assert door.limit == pytest.approx(300, abs=5)
    assert reason(door.refusal()) == "backlog"
    for second in range(60, 120):
        door.observed(900, 100, second)
    assert door.limit == pytest.approx(1000, abs=5)
    for second in range(120, 240):
        door.observed(900, 500, second)
    assert door.limit == 1000  # and no further


def test_a_little_is_always_taken():
    door = gate(backlog=1000, in_time=10)
    for second in range(60):
        door.observed(900, 11, second)
    assert door.limit == pytest.approx(110, abs=5)
    door.observed(99, 0, 61)
    assert door.refusal() is None


def test_with_little_to_do_a_slow_pace_says_nothing():
    door = gate(backlog=1000, in_time=10)
    for second in range(60):
        door.observed(99, 20, second)
    assert door.limit == 1000


def test_an_outage_is_no_pace():
    door = gate(backlog=1000, in_time=10)
    for second in range(30):
        door.observed(200 + 20 * second, 20, second)  # nothing is answered
        assert door.refusal() is None
    assert door.limit == 1000


async def test_turns_are_bounded_and_a_turn_that_does_not_come_is_an_overload():
    door = gate(turns=1)
    async with door.turn():
        with pytest.raises(Problem) as caught:
            async with door.turn(0.01):
                pass
    assert (caught.value.status, caught.value.code) == (503, "overloaded")
    assert int((caught.value.headers or {})["Retry-After"]) >= 1
    async with door.turn(0.01):  # given back
        pass


async def test_a_stream_goes_on_when_the_gate_opens_or_is_told_when_it_does_not():
    door = gate()
    door.observed(1000, 0, 0)
    with pytest.raises(Problem, match="Overloaded"):
        await door.opened(0.01)
    waiting = asyncio.create_task(door.opened(5))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    door.observed(100, 0, 1)
    await asyncio.wait_for(waiting, 1)
