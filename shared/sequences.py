"""An alarm, not a guard: the sequence of an entity's events has a gap."""

from __future__ import annotations

from collections import OrderedDict

from shared.telemetry import SEQUENCE_GAPS, log

REMEMBERED = 50_000  # entities


class Sequences:
    """The last sequence of each entity that a consumer has heard of lately."""

    def __init__(self, consumer: str):
        self._consumer = consumer
        self._last: OrderedDict[tuple[str, str], int] = OrderedDict()

    def follow(self, topic: str, key: str, sequence: int) -> None:
        if sequence > (last := self._last.get((topic, key), sequence - 1)) + 1:
            SEQUENCE_GAPS.labels(self._consumer).inc()
            log.error("gap in sequence", consumer=self._consumer, topic=topic, key=key, after=last, sequence=sequence)
        self._last[topic, key] = max(sequence, last)
        self._last.move_to_end((topic, key))
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)

    def clear(self) -> None:
        """Others may have gone on with these entities."""
        self._last.clear()
