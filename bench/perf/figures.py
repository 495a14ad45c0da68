"""Arithmetic of measuring: quantiles, histograms, and whether a backlog grows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from math import ceil

BOUNDED = 0.03  # of the rate: a backlog that grows by less stays bounded
BINS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 10_000)  # ms


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of the values does not exceed; the values in ascending order."""
    if not ordered:
        return float("nan")
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and max in milliseconds, and how many there were."""
    ordered = sorted(seconds)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    found = {name: round(quantile(ordered, share) * 1000, 1) for name, share in shares.items()}
    return found | {"count": len(ordered)}


def histogram(seconds: Sequence[float]) -> dict[str, int]:
    """How many took at most so many milliseconds, and more than the bin before; the last bin has the rest."""
    counts = [0] * (len(BINS) + 1)
    for one in seconds:
        counts[bisect_right(BINS, one * 1000 - 1e-9)] += 1
    return {f"{limit:g}": count for limit, count in zip((*BINS, float("inf")), counts, strict=True)}


def growth(due: Sequence[float], done: Sequence[float], begin: float, end: float, step: float = 0.1) -> float:
    """Orders a second by which those under way became more from ``begin`` to ``end``, by least squares.

    ``due`` and ``done`` are times in ascending order: when orders were to be sent, and when they were confirmed. One
    look in the middle of each ``step``: where orders come in large pieces, the time from one piece to the next.
    """
    times = [begin + (number + 0.5) * step for number in range(int((end - begin) / step + 1e-6))]
    backlog = [bisect_right(due, at) - bisect_right(done, at) for at in times]
    middle, mean = sum(times) / len(times), sum(backlog) / len(backlog)
    spread = sum((at - middle) ** 2 for at in times)
    return sum((at - middle) * (one - mean) for at, one in zip(times, backlog, strict=True)) / spread if spread else 0.0


def most_open(due: Sequence[float], done: Sequence[float], begin: float, end: float) -> int:
    """The most that were due and not done at any time from ``begin`` to ``end``; both in ascending order."""
    times = (at for at in due if begin <= at <= end)
    return max((bisect_right(due, at) - bisect_right(done, at) for at in times), default=0)


def within(ordered: Sequence[float], begin: float, end: float) -> int:
    """How many times lie after ``begin`` and not after ``end``."""
    return bisect_right(ordered, end) - bisect_right(ordered, begin)


def per(counts: Mapping[str, float], number: float) -> dict[str, float]:
    """Each count divided by ``number``, in thousandths: seconds of all become milliseconds of one."""
    return {name: round(count * 1000 / number, 3) if number else 0.0 for name, count in counts.items()}
