"""Liveness is progress: every loop beats while it turns, and one that stands still makes the process unwell."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

Check = Callable[[], Awaitable[str | None]]
"""What is wrong, or None."""


class Health:
    """The beats of a process's loops, and the checks that say whether it is ready for traffic."""

    def __init__(self) -> None:
        self._beats: dict[str, tuple[float, float]] = {}
        self._checks: dict[str, Check] = {}

    def beat(self, loop: str, *, within: float = 60.0) -> None:
        """``loop`` has turned, and will again within so many seconds."""
        self._beats[loop] = (time.monotonic(), within)

    def ended(self, loop: str) -> None:
        self._beats.pop(loop, None)

    def ready_when(self, name: str, check: Check) -> None:
        self._checks[name] = check

    def stuck(self) -> dict[str, float]:
        """Loops that have not turned in time, with the seconds since their last beat."""
        now = time.monotonic()
        return {loop: round(now - at, 1) for loop, (at, within) in self._beats.items() if now - at > within}

    async def unready(self) -> dict[str, str]:
        """What keeps this process from being ready, by name."""
        found: dict[str, str] = {}
        for name, check in self._checks.items():
            try:
                problem = await check()
            except Exception as error:  # a check that fails is the answer, whatever it failed of
                problem = f"{type(error).__name__}: {error}"
            if problem is not None:
                found[name] = problem
        return found
