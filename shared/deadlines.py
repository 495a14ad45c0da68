"""Up to when deadlines may be judged: only once what came in time has been consumed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from shared.consume import Due
from shared.kafka import Consumer
from shared.postgres import Database
from shared.progress import Place

EVERY = 1.0  # seconds between two looks
LATE = 5.0  # seconds that an event may wait in the outbox before we take it for an outage
GRACE = 10.0  # seconds without judging, after an outage or a rebalance

NOW_AND_OUTBOX = "SELECT clock_timestamp(), (SELECT recorded_at FROM outbox ORDER BY position LIMIT 1)"


class Watermark:
    """Marks a database time and the ends of the log at it; when these are consumed, the time is safe.

    After an outage nothing is judged for a while: what this service could not say, others could not answer.
    """

    def __init__(self, database: Database):
        self._database = database
        self._mark: tuple[datetime, dict[Place, int]] | None = None
        self._next = 0.0

    def restart(self, now: float) -> None:
        """Partitions came or went."""
        self._mark, self._next = None, now + GRACE + EVERY

    async def due(self, kafka: Consumer, positions: Mapping[Place, int], now: float) -> Due | None:
        """The time up to which deadlines may be judged now, if there is one. ``now`` is monotonic, in seconds."""
        if self._mark is None and now >= self._next:
            await self._set_mark(kafka, positions, now)
        if self._mark is None:
            return None
        until, ends = self._mark
        if not all(positions.get(place, -1) >= end for place, end in ends.items()):
            return None
        self._mark = None
        return Due(until, sorted({partition for _, partition in ends}))

    async def _set_mark(self, kafka: Consumer, positions: Mapping[Place, int], now: float) -> None:
        async with self._database.reading() as connection:
            row = await connection.fetchrow(NOW_AND_OUTBOX)
        assert row is not None
        until, waiting_since = row
        if waiting_since is not None and (until - waiting_since).total_seconds() > LATE:
            self.restart(now)
        else:
            self._mark, self._next = (until, await kafka.end(positions)), now + EVERY
