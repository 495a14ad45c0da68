"""Finding the highest rate that holds: doubled until one does not, then halved in between."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt


@dataclass
class Search:
    """``next`` is the rate to try, or None when the answer is near enough or was looked for often enough."""

    first: float
    trials: int = 8
    near: float = 1.08  # the answer is known to this ratio
    step: float = 2.0
    held: float = 0.0  # the highest rate that held
    broke: float = 0.0  # the lowest that did not
    tried: int = 0

    @property
    def next(self) -> float | None:
        if self.tried >= self.trials or (self.held and self.broke and self.broke / self.held <= self.near):
            return None
        if not self.tried:
            return self.first
        if not self.broke:
            return self.held * self.step
        if not self.held:
            return self.broke / self.step
        return sqrt(self.held * self.broke)

    def enter(self, rate: float, held: bool) -> None:
        """What became of a trial with ``next``."""
        self.tried += 1
        if held:
            self.held = max(self.held, rate)
        else:
            self.broke = min(self.broke or rate, rate)
