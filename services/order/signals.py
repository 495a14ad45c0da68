"""Wake-ups inside the process: hints that something has committed, never effects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from uuid import UUID

MAX_WAITING = 500  # orders that are waited for at once; each is looked at again and again


class Signals:
    """Who waits for an order's outcome, who pays, and who ships."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, list[asyncio.Event]] = {}
        self.payments_due: Callable[[], None] = lambda: None
        self.parcels_due: Callable[[], None] = lambda: None

    def settled(self, order_ids: Iterable[UUID]) -> None:
        for order_id in order_ids:
            for event in self._waiting.get(order_id, ()):
                event.set()

    @property
    def crowded(self) -> bool:
        """Whether so many wait that one more should be told how things stand instead."""
        return len(self._waiting) >= MAX_WAITING

    async def wait(self, order_id: UUID, seconds: float) -> None:
        """Until the order is settled here, or a while has passed: another replica may have settled it."""
        event = asyncio.Event()
        self._waiting.setdefault(order_id, []).append(event)
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return
        finally:
            self._waiting[order_id].remove(event)
            if not self._waiting[order_id]:
                del self._waiting[order_id]


signals = Signals()
