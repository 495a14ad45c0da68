"""Notices a consumer to which nothing comes although the log goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from shared.kafka import Consumer, KafkaError, Place

LOOK = 10.0  # seconds between two looks, when nothing comes


class Silence:
    """Asks the broker how far the log goes, when nothing came for a while; behind twice at the same place, it is deaf.

    A client's tasks may end, or wait for ever, without a word: then a poll finds nothing, again and again.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._behind: set[tuple[Place, int]] = set()

    def broken(self, now: float) -> None:
        """Something came, or it begins anew. ``now`` is monotonic, in seconds."""
        self._since, self._behind = now, set()

    async def listen(self, kafka: Consumer, positions: Mapping[Place, int], now: float) -> None:
        """Nothing came; raises KafkaError when that is not because there is nothing."""
        if now - self._since < LOOK or not positions:
            return
        self._since = now
        try:
            ends = await asyncio.wait_for(kafka.end(positions), 5)
        except (KafkaError, TimeoutError):
            return  # the broker is away: that is why
        behind = {(place, at) for place, at in positions.items() if ends[place] > at}
        if deaf := behind & self._behind:
            raise KafkaError(f"nothing comes from {sorted(deaf)[:3]} though the log goes on; a new client is made")
        self._behind = behind
