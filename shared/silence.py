"""Notices a consumer to which nothing comes although the log goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from shared.kafka import Consumer, KafkaError, Place, bounds

LOOK = 10.0  # seconds between two looks, when nothing comes
ANSWER = 5.0  # seconds for the broker's answer
FAILED = 2  # looks in vain, one after the other, until somebody else asks


class Silence:
    """Asks the broker how far the log goes, when nothing came for a while; behind twice at the same place, it is deaf.

    A client's tasks may end, or wait for ever, without a word: then a poll finds nothing, again and again. One that
    gets no answer to the question either may be deaf as well, or the broker is away: another client knows.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._since = 0.0
        self._behind: set[tuple[Place, int]] = set()
        self._failed = 0

    def broken(self, now: float) -> None:
        """Something came, or it begins anew. ``now`` is monotonic, in seconds."""
        self._since, self._behind, self._failed = now, set(), 0

    async def listen(self, kafka: Consumer, positions: Mapping[Place, int], now: float) -> None:
        """Nothing came; raises KafkaError when that is not because there is nothing."""
        if now - self._since < LOOK or not positions:
            return
        self._since = now
        try:
            ends = await asyncio.wait_for(kafka.end(positions), ANSWER)
        except (KafkaError, TimeoutError):
            self._failed += 1
            if self._failed >= FAILED:
                await self._ask_another(positions)
            return
        self._failed = 0
        behind = {(place, at) for place, at in positions.items() if ends[place] > at}
        if deaf := behind & self._behind:
            raise KafkaError(f"nothing comes from {sorted(deaf)[:3]} though the log goes on; a new client is made")
        self._behind = behind

    async def _ask_another(self, positions: Mapping[Place, int]) -> None:
        try:
            await asyncio.wait_for(bounds(self._bootstrap_servers, {topic for topic, _ in positions}), ANSWER)
        except (KafkaError, OSError, TimeoutError):
            return  # the broker is away: that is why
        raise KafkaError("this client is told nothing, another one is; a new client is made")
