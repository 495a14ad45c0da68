"""Kafka's log, read apart from the group: where it was left, and what Faust has passed over."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.envelope import Record

Place = tuple[str, int]  # topic, partition


class Reader:
    """A consumer that belongs to no group and commits nothing; open for one look."""

    def __init__(self, bootstrap_servers: str, group: str):
        self._bootstrap_servers, self._group = bootstrap_servers, group

    async def left_at(self, places: Iterable[Place]) -> dict[Place, int]:
        """The next offset of each partition: what the group has committed, else where the log begins."""
        parts = [TopicPartition(*place) for place in places]
        kafka = self._consumer()
        await kafka.start()
        try:
            kafka.assign(parts)
            begin = await kafka.beginning_offsets(parts)
            return {(part.topic, part.partition): await kafka.committed(part) or begin[part] for part in parts}
        finally:
            await kafka.stop()

    async def between(self, place: Place, start: int, end: int) -> list[Record]:
        """Records from offset ``start`` to before ``end``, which is in the log; none that retention has deleted."""
        part = TopicPartition(*place)
        found: list[Record] = []
        kafka = self._consumer()
        await kafka.start()
        try:
            kafka.assign([part])
            kafka.seek(part, max(start, (await kafka.beginning_offsets([part]))[part]))
            while await kafka.position(part) < end:
                for records in (await kafka.getmany(timeout_ms=1000)).values():
                    found += [cast(Record, record) for record in records if record.offset < end]
        finally:
            await kafka.stop()
        return found

    def _consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap_servers, group_id=self._group, enable_auto_commit=False,
            auto_offset_reset="earliest", max_partition_fetch_bytes=8 * 1_048_576,
        )  # fmt: skip
