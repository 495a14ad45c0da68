"""Work that no message starts: loops that turn on a clock, or when woken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shared.health import Health
from shared.postgres import is_infrastructure
from shared.telemetry import RETRIES, log


class Worker:
    """Runs ``turn`` every ``every`` seconds, and at once after ``wake``; a turn that returns True has more to do."""

    def __init__(self, name: str, turn: Callable[[], Awaitable[bool]], *, every: float):
        self.name, self._turn, self._every = name, turn, every
        self._awake = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        self._awake.set()

    def stop(self) -> None:
        self._stopping = True
        self._awake.set()

    async def run(self, health: Health) -> None:
        while not self._stopping:
            health.beat(self.name, within=self._every * 2 + 60)
            self._awake.clear()
            pause = self._every
            try:
                if await self._turn():
                    continue
            except Exception as error:
                known = is_infrastructure(error)
                (log.warning if known else log.exception)("worker will try again", worker=self.name, reason=repr(error))
                RETRIES.labels(self.name).inc()
                pause = min(1.0, self._every)
            try:
                await asyncio.wait_for(self._awake.wait(), pause)
            except TimeoutError:
                continue
        health.ended(self.name)
