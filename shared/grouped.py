"""Many callers, one transaction: what is asked for while a group is under way makes up the next one.

A caller who is alone waits for nobody; with more of them the groups grow, and what each costs is shared.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from shared.postgres import is_infrastructure
from shared.problems import Problem

A = TypeVar("A")
R = TypeVar("R")


class Grouped(Generic[A, R]):
    """``do`` is given the arguments of several calls and returns as many results, in order; an exception as a result
    is raised to that caller. If ``do`` itself raises for several, it is asked for each alone, unless the error (a
    Problem, or of the infrastructure) says nothing of any of them.

    At most ``lanes`` groups of at most ``size`` are under way at once.
    """

    def __init__(self, do: Callable[[list[A]], Awaitable[Sequence[R | Exception]]], *, size: int = 100, lanes: int = 2):
        self._do, self._size, self._lanes = do, size, lanes
        self._waiting: deque[tuple[A, asyncio.Future[R]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()  # held, or they could be collected
        self._running = 0

    async def __call__(self, argument: A) -> R:
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((argument, future))
        if self._running < self._lanes:
            self._running += 1
            task = asyncio.create_task(self._lane())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _lane(self) -> None:
        try:
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
                group = [(argument, future) for argument, future in group if not future.done()]  # the caller went away
                if group:
                    await self._run(group)
        finally:
            self._running -= 1  # in one breath with the last look: who comes from here on starts a lane

    async def _run(self, group: Sequence[tuple[A, asyncio.Future[R]]]) -> None:
        try:
            results = await self._do([argument for argument, _ in group])
        except Exception as error:
            if len(group) == 1 or isinstance(error, Problem) or is_infrastructure(error):
                for _, future in group:
                    _tell(future, error)
            else:
                for one in group:
                    await self._run([one])
            return
        for (_, future), result in zip(group, results, strict=True):
            _tell(future, result)


def _tell(future: asyncio.Future[R], result: R | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
