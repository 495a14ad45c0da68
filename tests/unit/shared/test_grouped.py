"""Callers share a group, and each hears of its own argument only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from shared.grouped import Grouped
from shared.problems import Problem


class Groups:
    """Squares numbers, and remembers in which groups it was asked."""

    def __init__(self, *, lanes: int = 1, size: int = 100):
        self.seen: list[list[int]] = []
        self.gate = asyncio.Event()
        self.ask = Grouped(self._square, lanes=lanes, size=size)

    async def _square(self, numbers: list[int]) -> Sequence[int | Exception]:
        self.seen.append(numbers)
        await self.gate.wait()
        if any(number == 13 for number in numbers):
            raise ArithmeticError("thirteen")
        if any(number == 503 for number in numbers):
            raise Problem(503, "Overloaded", "later")
        return [KeyError(number) if number < 0 else number * number for number in numbers]


async def asked(groups: Groups, *numbers: int) -> list[int | BaseException]:
    calls = [asyncio.create_task(groups.ask(number)) for number in numbers]
    await asyncio.sleep(0.01)
    groups.gate.set()
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_who_comes_while_a_group_is_under_way_makes_up_the_next():
    groups = Groups()
    first = asyncio.create_task(groups.ask(1))
    await asyncio.sleep(0)
    assert await asked(groups, 2, 3, 4) == [4, 9, 16]
    assert await first == 1
    assert groups.seen == [[1], [2, 3, 4]]


async def test_who_comes_at_the_very_end_of_a_lane_is_not_forgotten():
    groups = Groups()
    groups.gate.set()
    answers: list[int] = []

    async def chain(number: int) -> None:
        for _ in range(50):  # each call begins as soon as the lane of the one before has ended
            answers.append(await groups.ask(number))

    async with asyncio.timeout(2):
        await asyncio.gather(*(chain(number) for number in range(3)))
    assert len(answers) == 150


async def test_lanes_and_sizes_are_kept():
    groups = Groups(lanes=2, size=2)
    assert await asked(groups, 1, 2, 3, 4, 5, 6, 7) == [1, 4, 9, 16, 25, 36, 49]
    assert all(len(group) <= 2 for group in groups.seen)
    assert len(groups.seen) >= 4


async def test_an_exception_among_the_results_is_its_callers_own():
    one, two, three = await asked(Groups(), 1, -2, 3)
    assert (one, three) == (1, 9)
    assert isinstance(two, KeyError)


async def test_the_culprit_of_a_group_is_found():
    groups = Groups()
    answers = await asked(groups, 1, 13, 3)
    assert [answers[0], answers[2]] == [1, 9]
    assert isinstance(answers[1], ArithmeticError)


@pytest.mark.parametrize("number", [503])
async def test_what_says_nothing_of_any_is_told_to_all_at_once(number: int):
    groups = Groups()
    first = asyncio.create_task(groups.ask(1))
    await asyncio.sleep(0)
    answers = await asked(groups, 2, number, 3)
    assert all(isinstance(answer, Problem) for answer in answers)
    assert await first == 1
    assert len(groups.seen) == 2


async def test_a_caller_who_went_away_is_left_out():
    groups = Groups()
    first = asyncio.create_task(groups.ask(1))
    await asyncio.sleep(0)
    gone = asyncio.create_task(groups.ask(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert await asked(groups, 3) == [9]
    await first
    assert groups.seen == [[1], [3]]
