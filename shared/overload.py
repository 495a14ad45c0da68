"""Whether new work is taken now: beyond what can be done in time it is refused at once, and what was taken is served.

Two limits. In flight: requests of this process that were let in and have not done their work; it bounds their latency,
and memory. Backlog: work that was taken and is not done, over all replicas, as counted in the database about once a
second; it bounds how long what was taken waits for its outcome. A count and not an age: an outage of Kafka makes work
wait, and does not make it too much.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import ceil

from shared.problems import Problem
from shared.telemetry import GATE_BACKLOG, GATE_LIMIT, GATE_OPEN, GATE_PACE, IN_FLIGHT, SHED, log

AGAIN = 0.9  # of the limit: below it a closed gate opens
LEAST = 0.1  # of the limit: so much is always taken; with less to do, the pace says what was asked for
STALL = 0.1  # of the pace: what is slower is an outage of something, and no pace
SMOOTH = 0.2  # weight of the latest second in the pace
LONGEST = 60  # seconds of Retry-After
TURN_SECONDS = 5.0  # that a request waits for its turn at the database


@dataclass(frozen=True)
class Limits:
    """``backlog`` in entities, ``in_time`` the seconds in which they should be done; how many requests are let in at
    once, how many streams, and how many of both use the database at once: fewer than it has connections.
    """

    work: str  # what the gate is called in metrics and in the log
    backlog: int
    in_time: float
    in_flight: int = 200
    streams: int = 16
    turns: int = 6


@dataclass(frozen=True)
class Refusal:
    """Why a request is not taken (`backlog`, `in_flight`, `streams`, `turn`), and when to come back, in seconds."""

    reason: str
    retry_after: int

    def problem(self) -> Problem:
        detail = "more was sent than can be done in time; send it again, the same, after Retry-After"
        headers = {"Retry-After": str(self.retry_after)}
        return Problem(503, "Overloaded", detail, code="overloaded", headers=headers)


class Place:
    """A request's place among those in flight; left once, whoever says so first."""

    def __init__(self, gate: Gate, *, stream: bool):
        self._gate, self._stream, self._left = gate, stream, False

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self._gate.left(stream=self._stream)


current_place: ContextVar[Place | None] = ContextVar("current_place", default=None)


def leave() -> None:
    """The work of the current request is done: what it still waits for must not keep others out."""
    if (place := current_place.get()) is not None:
        place.leave()


class Gate:
    """Knows what one process has at hand, and what waits to be done."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._turns = asyncio.Semaphore(limits.turns)
        self._in_flight = self._streams = 0
        self._counted = self._added = 0
        self._looked_at: float | None = None
        self._pace = self._full_pace = limits.backlog / limits.in_time
        self._open = asyncio.Event()
        self._open.set()
        GATE_OPEN.labels(limits.work).set(1)
        self._show()

    @property
    def backlog(self) -> int:
        """What waits: as counted, and what was added here since."""
        return self._counted + self._added

    @property
    def limit(self) -> int:
        """What can be done in time at the pace seen when there was much to do; between a tenth and all of the limit."""
        return max(1, ceil(self._limits.backlog * min(1.0, max(LEAST, self._pace / self._full_pace))))

    # -- requests -------------------------------------------------------------------------------------------------

    def refusal(self, *, stream: bool = False) -> Refusal | None:
        """Why a request that begins now is not taken; None if it is. ``stream``: it may last for minutes."""
        if not self._open.is_set():
            return self._full()
        if stream and self._streams >= self._limits.streams:
            return self._refuse("streams", 5)
        if not stream and self._in_flight >= self._limits.in_flight:
            return self._refuse("in_flight", 1)
        return None

    def enter(self, *, stream: bool = False) -> Place:
        self._count(1, stream=stream)
        return Place(self, stream=stream)

    def left(self, *, stream: bool) -> None:
        self._count(-1, stream=stream)

    @asynccontextmanager
    async def turn(self, seconds: float = TURN_SECONDS) -> AsyncGenerator[None]:
        """First come, first served at the database; raises the problem `overloaded` after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._turns.acquire()
        except TimeoutError:
            raise self._refuse("turn", 2).problem() from None
        try:
            yield
        finally:
            self._turns.release()

    async def opened(self, seconds: float) -> None:
        """Wait for an open gate, as a stream does between two pieces; raises the problem `overloaded` if it is not."""
        try:
            async with asyncio.timeout(seconds):
                await self._open.wait()
        except TimeoutError:
            raise self._full().problem() from None

    # -- work -----------------------------------------------------------------------------------------------------

    def added(self, number: int) -> None:
        """So many were taken here just now."""
        self._added += number
        self._judge()

    def observed(self, waiting: int, new: int, now: float) -> None:
        """So many wait, and so many came since the last look, over all replicas. ``now`` is monotonic, in seconds."""
        if self._looked_at is not None and self._counted >= LEAST * self._limits.backlog:
            pace = (self._counted + new - waiting) / max(now - self._looked_at, 0.1)
            if pace > STALL * self._pace:
                self._pace += SMOOTH * (pace - self._pace)
        self._counted, self._added, self._looked_at = waiting, 0, now
        self._judge()
        self._show()

    def _judge(self) -> None:
        full = self.backlog >= (self.limit if self._open.is_set() else AGAIN * self.limit)
        if full != self._open.is_set():
            return
        if full:
            self._open.clear()
        else:
            self._open.set()
        GATE_OPEN.labels(self._limits.work).set(not full)
        log.warning("no more is taken" if full else "more is taken again", work=self._limits.work,
                    backlog=self.backlog, limit=self.limit, pace=round(self._pace, 1))  # fmt: skip

    # -- numbers --------------------------------------------------------------------------------------------------

    def _full(self) -> Refusal:
        return self._refuse("backlog", (self.backlog - AGAIN * self.limit) / self._pace)

    def _refuse(self, reason: str, seconds: float) -> Refusal:
        SHED.labels(reason).inc()
        # Spread over twice the time, or all come back at once.
        return Refusal(reason, min(LONGEST, max(1, ceil(seconds * random.uniform(1, 2)))))

    def _count(self, number: int, *, stream: bool) -> None:
        if stream:
            self._streams += number
        else:
            self._in_flight += number
        IN_FLIGHT.set(self._in_flight + self._streams)

    def _show(self) -> None:
        work = self._limits.work
        GATE_BACKLOG.labels(work).set(self.backlog)
        GATE_LIMIT.labels(work).set(self.limit)
        GATE_PACE.labels(work).set(self._pace)
