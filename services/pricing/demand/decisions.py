"""How demand is counted: windows of business time, lines counted once, and when what is published and forgotten."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from shared.events.order import OrderPlaced
from shared.events.pricing import DemandMeasured, LineDemanded

KEEP_SECONDS = 3600.0  # for which a window that is not at hand is remembered after its last line
KEEP_WINDOWS = 4_000  # of each partition, beside those at hand; of more the longest untouched is forgotten
FORGET_AT_ONCE = 4  # more than one line can add, so that forgetting keeps up without ever taking long
SAY_AGAIN_SECONDS = 60.0  # before the last line that was counted: what a crash may have kept from being published


class Position(NamedTuple):
    """Where a line lies in the log of orders: partition, offset, and its number in the order, from 0."""

    partition: int
    offset: int
    number: int

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}/{self.number}"

    @staticmethod
    def parse(text: str) -> Position:
        """Raises ValueError where it is none."""
        partition, offset, number = text.split("/")
        return Position(int(partition), int(offset), int(number))


class Window(NamedTuple):
    """A SKU in a window of business time; ``start`` and ``end`` in seconds since 1970, ``end`` excluded."""

    start: int
    end: int
    sku: str


@dataclass(frozen=True)
class Count:
    """What was asked for in a window, and how far it has been counted.

    ``seen`` holds, per partition of the orders, offset and number of the last line counted. Lines of one partition come
    in its order, however often, so that whatever is not beyond has been counted: this is all it takes to tell repeats.
    ``touched_at`` is real time, in seconds; ``partition`` is that of the lines.
    """

    units: int = 0
    orders: int = 0
    touched_at: float = 0.0
    partition: int = 0
    seen: Mapping[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])


def lines_of(order: OrderPlaced) -> list[LineDemanded]:
    """What the order asks for, whether or not it gets it, in the order of its lines."""
    return [
        LineDemanded(
            occurred_at=order.occurred_at, sku=line.sku, order_id=order.order_id, line=line.line, quantity=line.quantity
        )
        for line in order.lines
    ]


def window_of(line: LineDemanded, seconds: int) -> Window:
    """Windows lie end to end from 1970 on, in UTC; one begins with its first instant and ends before the next."""
    start = int(line.occurred_at.timestamp() // seconds) * seconds
    return Window(start, start + seconds, line.sku)


def count(known: Count | None, line: LineDemanded, at: Position, partition: int, now: float) -> Count | None:
    """The window with this line; None if the line had been counted. An order of several lines of a SKU is one order."""
    before = known or Count()
    last = before.seen.get(at.partition, (-1, -1))
    if (at.offset, at.number) <= last:
        return None
    return Count(
        units=before.units + line.quantity,
        orders=before.orders + (at.offset != last[0]),
        touched_at=now,
        partition=partition,
        seen={**before.seen, at.partition: (at.offset, at.number)},
    )


def measured(window: Window, known: Count, generation: int) -> DemandMeasured:
    """What is published of a window. Its business time is when the window began: it may end in the future."""
    start, end = datetime.fromtimestamp(window.start, UTC), datetime.fromtimestamp(window.end, UTC)
    return DemandMeasured(
        occurred_at=start, sku=window.sku, window_start=start, window_end=end, units=known.units, orders=known.orders,
        generation=generation,
    )  # fmt: skip


def to_say_again(counts: Mapping[Window, Count]) -> list[Window]:
    """After a crash: the windows whose last change may not have been published."""
    last = max((known.touched_at for known in counts.values()), default=0.0)
    return [window for window, known in counts.items() if known.touched_at >= last - SAY_AGAIN_SECONDS]


class Recency:
    """Which windows were touched when, so that what is kept has a bound, however many windows there are.

    Windows at hand are never forgotten: those that have begun and not ended by the business time of their partition,
    which is the latest that its lines have shown, and never ahead of real time. There is one for each SKU of the
    partition. Of the others the longest untouched go.
    """

    def __init__(self, counts: Mapping[Window, Count] | None = None) -> None:
        self._partitions: dict[int, _Partition] = {}
        for window, known in sorted((counts or {}).items(), key=lambda one: one[1].touched_at):
            self._of(known.partition).touch(window, known.touched_at)

    def _of(self, partition: int) -> _Partition:
        return self._partitions.setdefault(partition, _Partition())

    def touch(self, partition: int, window: Window, now: float) -> list[Window]:
        """Windows of the same partition to be forgotten, a few at a time."""
        touched = self._of(partition)
        touched.touch(window, now)
        return touched.forget(now)

    def __len__(self) -> int:
        return sum(len(one.at_hand) + len(one.others) for one in self._partitions.values())


@dataclass
class _Partition:
    """Windows and when they were touched, the longest untouched first; ``latest`` is when those at hand began."""

    latest: int | None = None
    at_hand: dict[Window, float] = field(default_factory=dict[Window, float])
    others: OrderedDict[Window, float] = field(default_factory=OrderedDict[Window, float])

    def touch(self, window: Window, now: float) -> None:
        if window.start <= now and (self.latest is None or window.start > self.latest):
            self.latest = window.start
            for ended in [one for one in self.at_hand if one.end <= window.start]:
                del self.at_hand[ended]
                self.others[ended] = now  # from now on its time to be forgotten runs
        if self.latest is not None and window.start <= self.latest < window.end:
            self.others.pop(window, None)  # once it lay in the future
            self.at_hand[window] = now
        else:
            self.others[window] = now
            self.others.move_to_end(window)

    def forget(self, now: float) -> list[Window]:
        gone: list[Window] = []
        for oldest, at in self.others.items():
            if len(gone) == FORGET_AT_ONCE or (
                at >= now - KEEP_SECONDS and len(self.others) - len(gone) <= KEEP_WINDOWS
            ):
                break
            gone.append(oldest)
        for window in gone:
            del self.others[window]
        return gone


class Changes:
    """Windows that changed since they were last published: a hot one is published once for many lines."""

    def __init__(self) -> None:
        self._changed: dict[Window, None] = {}

    def note(self, windows: Iterable[Window]) -> None:
        self._changed.update(dict.fromkeys(windows))

    def take(self) -> list[Window]:
        """All of them, first changed first; they are as good as published unless noted again."""
        taken, self._changed = list(self._changed), {}
        return taken


def to_json(known: Count) -> dict[str, Any]:
    return {
        "units": known.units, "orders": known.orders, "at": known.touched_at, "partition": known.partition,
        "seen": {str(partition): list(place) for partition, place in known.seen.items()},
    }  # fmt: skip


def from_json(kept: Mapping[str, Any]) -> Count:
    seen = {int(partition): (int(offset), int(number)) for partition, (offset, number) in kept["seen"].items()}
    return Count(kept["units"], kept["orders"], kept["at"], kept["partition"], seen)
