"""aiokafka, typed: it ships no types, so only this module touches it. Its unsafe defaults are set right here."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from shared.envelope import Headers, Record
from shared.messages import DAY_MS, Topic

__all__ = [
    "Consumer",
    "KafkaError",
    "MessageSizeTooLargeError",
    "Producer",
    "UnknownTopicOrPartitionError",
    "create_topics",
    "read_all",
]

Place = tuple[str, int]  # topic, partition
UNKNOWN_AFTER = 2.0  # seconds in which the broker should have told us of a topic


class Consumer:
    """A member of a consumer group that keeps its offsets elsewhere and tells Kafka about them for show."""

    def __init__(
        self, bootstrap_servers: str, *, group: str, member: str, max_records: int, poll_ms: int,
    ):  # fmt: skip
        """``member`` is stable across restarts (static membership): a restart moves no partitions."""
        self._poll_ms = poll_ms
        self._max_records = max_records
        self._kafka = AIOKafkaConsumer(
            bootstrap_servers=bootstrap_servers,
            group_id=group,
            group_instance_id=member,
            # Range: the partitions of the same number of several topics come to the same member.
            partition_assignment_strategy=(RangePartitionAssignor,),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=max_records,
            session_timeout_ms=20_000,
            fetch_max_wait_ms=poll_ms,
            max_partition_fetch_bytes=8 * 1_048_576,
            retry_backoff_ms=100,
        )

    async def start(
        self, topics: Sequence[str], on_revoked: Callable[[], None], on_assigned: Callable[[], None]
    ) -> None:
        """Join the group; the two are called before a rebalance and after it."""
        self._kafka.subscribe(list(topics), listener=_Listener(on_revoked, on_assigned))
        await self._kafka.start()

    async def stop(self) -> None:
        await asyncio.wait_for(asyncio.shield(self._kafka.stop()), 10)

    def assignment(self) -> set[Place]:
        return {(part.topic, part.partition) for part in self._kafka.assignment()}

    async def poll(self) -> list[Record]:
        """Records in log order per partition; waits up to the poll time for the first one."""
        fetched = await self._kafka.getmany(timeout_ms=self._poll_ms, max_records=self._max_records)
        return [cast(Record, record) for records in fetched.values() for record in records]

    def seek(self, place: Place, offset: int) -> None:
        self._kafka.seek(TopicPartition(*place), offset)

    def highwater(self, place: Place) -> int | None:
        """The end of the partition as of the last fetch."""
        return cast(int | None, self._kafka.highwater(TopicPartition(*place)))

    async def begin(self, places: Iterable[Place]) -> dict[Place, int]:
        return _by_place(await self._kafka.beginning_offsets([TopicPartition(*place) for place in places]))

    async def end(self, places: Iterable[Place]) -> dict[Place, int]:
        """The ends of partitions now, asked of the broker."""
        return _by_place(await self._kafka.end_offsets([TopicPartition(*place) for place in places]))

    async def commit(self, offsets: Mapping[Place, int]) -> None:
        await self._kafka.commit({TopicPartition(*place): offset for place, offset in offsets.items()})


class Producer:
    """Idempotent, acknowledged by all replicas. After an error make a new one and send again what is in doubt."""

    def __init__(self, bootstrap_servers: str):
        self._known: set[str] = set()
        self._kafka = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True, linger_ms=0,
            max_request_size=8 * 1_048_576, max_batch_size=262_144, request_timeout_ms=15_000, retry_backoff_ms=100,
        )  # fmt: skip

    async def start(self) -> None:
        await self._kafka.start()

    async def stop(self) -> None:
        # A producer that failed may never flush.
        await asyncio.wait_for(self._kafka.stop(), 5)

    async def send(self, topic: str, key: str, value: bytes, headers: Headers) -> asyncio.Future[Any]:
        """Hand over one record; the future ends when it is acknowledged.

        Raises MessageSizeTooLargeError at once, and UnknownTopicOrPartitionError soon: others wait meanwhile.
        """
        if topic not in self._known:
            try:
                await asyncio.wait_for(self._kafka.partitions_for(topic), UNKNOWN_AFTER)
            except TimeoutError as error:
                raise UnknownTopicOrPartitionError(topic) from error
            self._known.add(topic)
        return cast("asyncio.Future[Any]", await self._kafka.send(topic, value, key.encode(), headers=list(headers)))


async def read_all(bootstrap_servers: str, topics: Sequence[Topic[Any]]) -> list[Record]:
    """Every record of these topics, from their beginnings to where they ended at the time of the call."""
    kafka = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, enable_auto_commit=False, max_partition_fetch_bytes=8 * 1_048_576
    )
    await kafka.start()
    try:
        found: list[Record] = []
        parts = [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
        kafka.assign(parts)
        begin, end = await kafka.beginning_offsets(parts), await kafka.end_offsets(parts)
        left = {part for part in parts if end[part] > begin[part]}
        for part in parts:
            kafka.seek(part, begin[part])
        while left:
            for part, records in (await kafka.getmany(timeout_ms=1000)).items():
                found.extend(cast(Record, record) for record in records if record.offset < end[part])
                if records[-1].offset + 1 >= end[part]:
                    left.discard(part)
        return found
    finally:
        await kafka.stop()


async def create_topics(bootstrap_servers: str, topics: Sequence[Topic[Any]], replication_factor: int = 1) -> int:
    """Create the topics that do not exist yet, as they declare themselves; returns how many were new."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await client.start()
    try:
        there = set(await client.list_topics())
        missing = [
            NewTopic(
                topic.name, topic.partitions, replication_factor,
                topic_configs={
                    "cleanup.policy": "delete",
                    "retention.ms": str(topic.retention_ms),
                    # a segment goes as a whole, when its last record is old enough: days, so that a week is not two
                    **({"segment.ms": str(DAY_MS)} if topic.retention_ms > 0 else {}),
                    "max.message.bytes": str(topic.max_message_bytes),
                },
            )
            for topic in topics
            if topic.name not in there
        ]  # fmt: skip
        if missing:
            answer = cast(Any, await client.create_topics(missing))
            for name, code, *_ in answer.topic_errors:
                if code and for_code(code) is not TopicAlreadyExistsError:
                    raise for_code(code)(f"topic {name} could not be created")
        return len(missing)
    finally:
        await client.close()


class _Listener(ConsumerRebalanceListener):
    def __init__(self, on_revoked: Callable[[], None], on_assigned: Callable[[], None]):
        self._on_revoked, self._on_assigned = on_revoked, on_assigned

    async def on_partitions_revoked(self, revoked: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._on_revoked()

    async def on_partitions_assigned(self, assigned: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._on_assigned()


def _by_place(offsets: Mapping[Any, int]) -> dict[Place, int]:
    return {(part.topic, part.partition): offset for part, offset in offsets.items()}
