"""What a check of an invariant says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ENDED = {"rejected", "cancelled", "expired"}  # without a sale
RESTING = {"confirmed", "closed"}  # a confirmed order is on its way


@dataclass(frozen=True)
class Finding:
    """An invariant with the number of things looked at, and what breaks it."""

    id: str
    statement: str
    checked: int
    broken: Sequence[str]

    @property
    def held(self) -> bool:
        return not self.broken
