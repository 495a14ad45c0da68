"""Tiers: what a customer's points of the last 365 days of business time come to. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

BASE = "base"
WINDOW = timedelta(days=365)
THRESHOLDS: Mapping[str, int] = {"silver": 500, "gold": 2000}

Earned = tuple[datetime, int]  # in what business time, and how many points


@dataclass(frozen=True)
class Standing:
    """``points`` earned in the window give ``tier``; at ``review_at`` so many have grown old that it falls.

    ``review_at`` is None where nothing can fall.
    """

    tier: str
    points: int
    review_at: datetime | None


def standing(earned: Iterable[Earned], at: datetime, thresholds: Mapping[str, int]) -> Standing:
    """How a customer stands at ``at``; ``thresholds`` are the points of each tier above base, the lowest first.

    What was earned exactly 365 days before is too old; what is newer than ``at`` counts.
    """
    counted = sorted(one for one in earned if one[0] > at - WINDOW)
    points = sum(number for _, number in counted)
    tier, needed = BASE, 0
    for name, threshold in thresholds.items():
        if points >= threshold:
            tier, needed = name, threshold
    left = points
    for when, number in counted:
        left -= number
        if left < needed:
            return Standing(tier, points, when + WINDOW)
    return Standing(tier, points, None)


def next_tier(points: int, thresholds: Mapping[str, int]) -> tuple[str, int] | None:
    """The lowest tier that needs more than ``points``, with what it needs; None at the top."""
    return next(((name, threshold) for name, threshold in thresholds.items() if points < threshold), None)


def later(clock: datetime | None, seen: datetime) -> datetime:
    """The business clock after ``seen``: whole hours, never back; so it need not be written for every order."""
    hour = seen.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return hour if clock is None else max(clock, hour)
