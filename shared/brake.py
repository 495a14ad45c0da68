"""The brake: a bad release must not dead-letter everything."""

from __future__ import annotations

from collections import deque

from shared.telemetry import BRAKED

WINDOW = 1000  # messages
LIMIT = 20  # dead letters among them; one in 500, which a healthy system must bear, stays well below


class BrakedError(Exception):
    """Too many messages would be set aside: the consumer holds still, and its offset stays."""


class Brake:
    """Counts what was set aside among the last thousand messages. Once on, only a restart releases it."""

    def __init__(self, consumer: str):
        self._consumer = consumer
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self.on = False

    def check(self, more: int) -> None:
        """Raise BrakedError when not so many ``more`` messages may be set aside; it is on once not even one may."""
        if self.on or sum(self._recent) + more > LIMIT:
            if more == 1:
                self.on = True
                BRAKED.labels(self._consumer).set(1)
            raise BrakedError(f"{self._consumer}: {LIMIT} dead letters among the last {len(self._recent)} messages")

    def count(self, *, good: int, bad: int) -> None:
        self._recent.extend([False] * good)
        self._recent.extend([True] * bad)
