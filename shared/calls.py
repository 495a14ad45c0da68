"""Calls to the outside world: claimed in one transaction, made outside of any, their outcomes stored in another.

A claim is a lease: a worker that dies leaves work that another asks about once the lease has run out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from shared.crash import crash_point
from shared.postgres import is_infrastructure
from shared.telemetry import log
from shared.work import Worker

T = TypeVar("T")

IN_FLIGHT = 64
STORED_AT_ONCE = 200
LEASE_SECONDS = 30

Call = Coroutine[Any, Any, T | None]
Claim = Callable[[int], Awaitable[Sequence[Call[T]]]]


def backoff(attempts: int) -> float:
    """Seconds until the next attempt: from one, doubling to half a minute."""
    return min(60, 2 ** min(attempts, 6)) / 2


class Calls(Generic[T]):
    """Two loops: one claims and calls, the other stores outcomes, many in one transaction.

    ``claim(room)`` leases at most ``room`` pieces of work and returns a call for each; what a call returns, unless it
    is None, is handed to ``store``, which must bear being told the same twice.
    """

    def __init__(self, name: str, claim: Claim[T], store: Callable[[list[T]], Awaitable[None]], *, every: float = 1.0):
        self._name = name
        self._claim_work = claim
        self._store_outcomes = store
        self._calls: set[asyncio.Task[None]] = set()
        self._outcomes: list[T] = []
        self._more = False  # work was left unclaimed for want of room
        self._calling = Worker(name, self._claim, every=every)
        self._storing = Worker(f"{name}: outcomes", self._store, every=1.0)
        self.workers = (self._calling, self._storing)

    def wake(self) -> None:
        """There is new work."""
        self._calling.wake()

    async def close(self, seconds: float = 6.0) -> None:
        """Let the calls under way end, and store what came of them."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=seconds)
        await self._store()

    async def _claim(self) -> bool:
        room = IN_FLIGHT - len(self._calls)
        if room <= 0:
            self._more = True
            return False  # the next call that ends wakes this up
        calls = await self._claim_work(room)
        for call in calls:
            task = asyncio.create_task(self._make(call))
            self._calls.add(task)
            task.add_done_callback(self._ended)
        self._more = len(calls) >= room
        return False

    async def _make(self, call: Call[T]) -> None:
        crash_point("call claimed")
        outcome = await call
        crash_point("call made")
        if outcome is not None:
            self._outcomes.append(outcome)
            self._storing.wake()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("call failed; it is made again when its lease ends", calls=self._name, exc_info=error)
        if self._more:
            self._calling.wake()

    async def _store(self) -> bool:
        outcomes = self._outcomes[:STORED_AT_ONCE]
        if not outcomes:
            return False
        try:
            await self._store_outcomes(outcomes)
        except Exception as error:
            if is_infrastructure(error):
                raise
            await self._store_one_by_one(outcomes)
        crash_point("call outcome stored")
        del self._outcomes[: len(outcomes)]
        return bool(self._outcomes)

    async def _store_one_by_one(self, outcomes: list[T]) -> None:
        """One outcome cannot be stored: the others must not wait for it. Its lease makes us ask again."""
        for outcome in outcomes:
            try:
                await self._store_outcomes([outcome])
            except Exception as error:
                if is_infrastructure(error):
                    raise
                log.exception("outcome could not be stored", calls=self._name, outcome=repr(outcome)[:200])
