"""aiokafka, typed: it ships no types, so only this module touches it. Its unsafe defaults are set right here."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import (
    KafkaError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from shared.envelope import Headers, Record
from shared.messages import DAY_MS, Topic
from shared.partitions import partition_among, partition_of
from shared.telemetry import log

__all__ = [
    "Batch",
    "Consumer",
    "Group",
    "KafkaError",
    "Place",
    "Producer",
    "UnknownTopicOrPartitionError",
    "Written",
    "acknowledged_at",
    "bounds",
    "create_topics",
    "groups",
    "offsets_since",
    "read_all",
    "read_key",
    "read_partition",
    "read_range",
    "retentions",
    "rewind",
]

T = TypeVar("T")

Place = tuple[str, int]  # topic, partition
UNKNOWN_AFTER = 2.0  # seconds in which the broker should have told us of a topic
ASSIGNED_WITHIN = 30.0  # seconds; a group waits 20 s for a member that stands still
STOPPED_WITHIN = 5.0  # seconds, for a client to say what it has to say
_STOPPING = set["asyncio.Future[None]"]()  # held, or they could be collected


class Written(Record, Protocol):
    """A record with the time at which it was written, in milliseconds since 1970."""

    @property
    def timestamp(self) -> int: ...


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
        """Join the group; the two are called before a rebalance and after it. Raises KafkaError, also when there is no
        end to that. Then, too, it is to be stopped."""
        self._kafka.subscribe(list(topics), listener=_Listener(on_revoked, on_assigned))
        await _assigned(self._kafka.start())

    async def stop(self) -> None:
        await _stopped(self._kafka, cast(Any, self._kafka)._client)

    def assignment(self) -> set[Place]:
        return {(part.topic, part.partition) for part in self._kafka.assignment()}

    async def poll(self) -> list[Record]:
        """Records in log order per partition; waits up to the poll time for the first one.

        Nothing is fetched between two polls: the next one finds all that was written meanwhile, in one answer, and not
        only what had come when this one ended. Raises KafkaError when a rebalance does not come to an end.
        """
        self._kafka.resume(*self._kafka.paused())
        fetched = await _assigned(self._kafka.getmany(timeout_ms=self._poll_ms, max_records=self._max_records))
        if fetched:
            self._kafka.pause(*self._kafka.assignment())
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
        await self._kafka.commit(_by_part(offsets))


class Producer:
    """Idempotent, acknowledged by all replicas. After an error make a new one and send again what is in doubt."""

    def __init__(self, bootstrap_servers: str):
        self._kafka = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True, linger_ms=0,
            max_request_size=8 * 1_048_576, max_batch_size=262_144, request_timeout_ms=15_000, retry_backoff_ms=100,
        )  # fmt: skip

    async def start(self) -> None:
        await self._kafka.start()

    async def stop(self) -> None:
        """What is not sent by then is not sent any more: a producer that failed may never flush."""
        if not await _stopped(self._kafka, self._kafka.client) and (
            sender := cast(Any, self._kafka)._sender.sender_task
        ):
            sender.cancel()

    async def place(self, topic: str, key: str) -> Place:
        """Where a record with this key goes. Raises UnknownTopicOrPartitionError soon: others wait meanwhile."""
        partitions: set[int] | None = self._kafka.client.cluster.partitions_for_topic(topic)
        if not partitions:
            try:
                partitions = await asyncio.wait_for(self._kafka.partitions_for(topic), UNKNOWN_AFTER)
            except TimeoutError as error:
                raise UnknownTopicOrPartitionError(topic) from error
        return topic, partition_among(key, len(partitions))

    def batch(self) -> Batch:
        """An empty batch, to be filled and sent."""
        return Batch(self._kafka.create_batch())

    async def send(self, place: Place, batch: Batch) -> asyncio.Future[Any]:
        """Hand over records for one partition; the future ends when all of them are acknowledged, with the metadata of
        the first, or none."""
        future = await self._kafka.send_batch(batch.records, place[0], partition=place[1])
        return cast("asyncio.Future[Any]", future)

    async def send_one(self, topic: str, key: str, value: bytes, headers: Headers) -> asyncio.Future[Any]:
        """The same of a record alone. Raises UnknownTopicOrPartitionError."""
        batch = self.batch()
        batch.add(key, value, headers)
        return await self.send(await self.place(topic, key), batch)


@dataclass
class Batch:
    """Records for one partition, in order. One by one a client does the same at more than twice the cost."""

    records: BatchBuilder

    def add(self, key: str, value: bytes, headers: Headers) -> bool:
        """False when it is full: the record is not in it. A first one always is."""
        return self.records.append(timestamp=None, key=key.encode(), value=value, headers=list(headers)) is not None


async def _assigned(waiting: Awaitable[T]) -> T:
    """What a group's member waits for: a rebalance that does not come to an end raises KafkaError."""
    try:
        async with asyncio.timeout(ASSIGNED_WITHIN):
            return await waiting
    except TimeoutError as error:
        raise KafkaError(f"no partitions were assigned for {ASSIGNED_WITHIN:.0f} s; a new client tries") from error


async def _stopped(client: Any, connections: Any) -> bool:
    """Stop a client; False when that did not end well. Then its connections are closed, so that whatever waits for one
    fails; it is not cancelled, since what is cancelled in the middle stays half."""
    stopping = asyncio.ensure_future(client.stop())
    _STOPPING.add(stopping)
    stopping.add_done_callback(_STOPPING.discard)
    done, _ = await asyncio.wait([stopping], timeout=STOPPED_WITHIN)
    if not done:
        reason = "it does not end"
    elif stopping.cancelled():  # by one of its own tasks that was
        reason = "cancelled"
    elif error := stopping.exception():
        reason = repr(error)
    else:
        return True
    log.info("a Kafka client did not stop well", reason=reason)
    with contextlib.suppress(TimeoutError, OSError, KafkaError):
        await asyncio.wait_for(connections.close(), STOPPED_WITHIN)
    return False


def acknowledged_at(metadata: Any) -> tuple[Place, int] | None:
    """Where a record lies whose future ended well; None if the broker has had it before and no longer knows where."""
    if metadata.offset < 0 or metadata.log_start_offset == -1:
        return None
    return (metadata.topic, metadata.partition), metadata.offset


async def read_all(bootstrap_servers: str, topics: Sequence[Topic[Any]]) -> list[Record]:
    """Every record of these topics, from their beginnings to where they ended at the time of the call."""
    async with _reader(bootstrap_servers) as kafka:
        parts = [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
        begin, end = await kafka.beginning_offsets(parts), await kafka.end_offsets(parts)
        return [record async for record in _between(kafka, begin, end)]


async def read_key(bootstrap_servers: str, topics: Sequence[Topic[Any]], key: str, since: datetime) -> list[Record]:
    """The records with this key that were written from ``since`` on; only the one partition of the key is read.

    Topics that do not exist have none. The rest of the partition is read past, not kept.
    """
    async with _reader(bootstrap_servers) as kafka:
        there = await kafka.topics()
        parts = [TopicPartition(one.name, partition_of(key, one)) for one in topics if one.name in there]
        end = await kafka.end_offsets(parts)
        moments = await kafka.offsets_for_times(dict.fromkeys(parts, int(since.timestamp() * 1000)))
        begin = {part: moment.offset if (moment := moments[part]) else end[part] for part in parts}
        return [record async for record in _between(kafka, begin, end) if record.key == key.encode()]


async def read_partition(
    bootstrap_servers: str, place: Place, *, begin: int = 0, end: int | None = None, last: int | None = None
) -> AsyncGenerator[Written]:
    """The records of one partition from ``begin`` up to ``end`` (excluded), as far as they are there, in log order.

    Of these only the ``last`` so many. They are read while they are taken, so that a large range needs no large memory;
    close the generator where it is not read to its end.
    """
    part = TopicPartition(*place)
    async with _reader(bootstrap_servers) as kafka:
        first, beyond = (await kafka.beginning_offsets([part]))[part], (await kafka.end_offsets([part]))[part]
        until = beyond if end is None else min(end, beyond)
        since = max(begin, first, 0 if last is None else until - last)
        async for record in _between(kafka, {part: since}, {part: until}):
            yield cast(Written, record)


async def read_range(
    bootstrap_servers: str, begin: Mapping[Place, int], end: Mapping[Place, int]
) -> AsyncGenerator[Written]:
    """The records from ``begin`` up to ``end`` of each partition; for as long as Kafka is away, it waits."""
    async with _reader(bootstrap_servers) as kafka:
        async for record in _between(kafka, _by_part(begin), _by_part(end)):
            yield cast(Written, record)


async def offsets_since(bootstrap_servers: str, moments: Mapping[Place, datetime]) -> dict[Place, int]:
    """The first offset that was written at the moment or later; partitions without one are left out."""
    asked = {place: int(moment.timestamp() * 1000) for place, moment in moments.items()}
    async with _reader(bootstrap_servers) as kafka:
        found = await kafka.offsets_for_times(_by_part(asked))
    return {(part.topic, part.partition): one.offset for part, one in found.items() if one}


async def rewind(bootstrap_servers: str, group: Group) -> None:
    """Set what an idle group has committed to the beginning; raises KafkaError while it has members."""
    async with _reader(bootstrap_servers, group.name) as kafka:
        parts = [TopicPartition(*place) for place in group.committed]
        kafka.assign(parts)
        await kafka.commit(await kafka.beginning_offsets(parts))


@asynccontextmanager
async def _reader(bootstrap_servers: str, group: str | None = None) -> AsyncGenerator[Any]:
    kafka = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, group_id=group, enable_auto_commit=False,
        max_partition_fetch_bytes=8 * 1_048_576,
    )  # fmt: skip
    try:
        await kafka.start()
        await asyncio.sleep(0)  # stopped before its tasks have begun, aiokafka 0.14 raises CancelledError
        yield kafka
    finally:
        await kafka.stop()


async def _between(kafka: Any, begin: Mapping[Any, int], end: Mapping[Any, int]) -> AsyncGenerator[Record]:
    """What lies from ``begin`` up to ``end``, in log order per partition."""
    left = {part for part in begin if end[part] > begin[part]}
    if left:
        kafka.assign(list(left))
    for part in left:
        kafka.seek(part, begin[part])
    while left:
        for part, records in (await kafka.getmany(timeout_ms=1000)).items():
            for record in records:
                if record.offset < end[part]:
                    yield cast(Record, record)
            if records[-1].offset + 1 >= end[part]:
                left.discard(part)


async def create_topics(bootstrap_servers: str, topics: Sequence[Topic[Any]], replication_factor: int = 1) -> int:
    """Create the topics that do not exist yet, as they declare themselves; returns how many were new."""
    async with _admin(bootstrap_servers) as client:
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
            answer = await client.create_topics(missing)
            for name, code, *_ in answer.topic_errors:
                if code and for_code(code) is not TopicAlreadyExistsError:
                    raise for_code(code)(f"topic {name} could not be created")
        return len(missing)


@dataclass(frozen=True)
class Group:
    """A consumer group: how many members it has now, what they subscribe to, and what was committed last."""

    name: str
    members: int
    topics: frozenset[str]
    committed: Mapping[Place, int]


async def groups(bootstrap_servers: str) -> list[Group]:
    """Every consumer group that Kafka knows, by name."""
    async with _admin(bootstrap_servers) as client:
        names = sorted(name for name, *_ in await client.list_consumer_groups())
        # One by one: aiokafka 0.14 reads answers about several groups with the schema of an older version.
        described = await asyncio.gather(*(client.describe_consumer_groups([name]) for name in names))
        committed = await asyncio.gather(*(client.list_consumer_group_offsets(name) for name in names))
    found: list[Group] = []
    for name, ((response,), parts) in zip(names, zip(described, committed, strict=True), strict=True):
        ((_, _, _, _, _, members, *_),) = response.groups
        offsets = {(part.topic, part.partition): one.offset for part, one in parts.items()}
        subscribed = [_subscription(metadata) for _, _, _, metadata, *_ in members]
        topics = frozenset[str]().union(*subscribed, (topic for topic, _ in offsets))
        found.append(Group(name, len(members), topics, offsets))
    return found


def _subscription(metadata: bytes) -> frozenset[str]:
    """Topics that a member asks for; none while it joins."""
    return frozenset(ConsumerProtocolMemberMetadata.decode(metadata).subscription) if metadata else frozenset()


async def bounds(bootstrap_servers: str, topics: Iterable[str]) -> dict[Place, tuple[int, int]]:
    """Begin and end of each partition of these topics; those that do not exist have none."""
    async with _admin(bootstrap_servers) as client:
        there = set(topics).intersection(await client.list_topics())  # to describe another could create it
        described = await client.describe_topics(sorted(there)) if there else []
    parts = [TopicPartition(one["topic"], part["partition"]) for one in described for part in one["partitions"]]
    async with _reader(bootstrap_servers) as kafka:
        begin, end = _by_place(await kafka.beginning_offsets(parts)), _by_place(await kafka.end_offsets(parts))
    return {place: (begin[place], end[place]) for place in sorted(begin)}


async def retentions(bootstrap_servers: str, topics: Iterable[str]) -> dict[str, int]:
    """How long each of these topics, which must exist, keeps a record: milliseconds, -1 for ever."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
    async with _admin(bootstrap_servers) as client:
        responses = await client.describe_configs(asked) if asked else []
    return {
        name: int(value)
        for response in responses
        for code, _, _, name, entries in response.resources
        for setting, value, *_ in entries
        if not code and setting == "retention.ms"
    }


@asynccontextmanager
async def _admin(bootstrap_servers: str) -> AsyncGenerator[Any]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        await client.start()
        yield client
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


def _by_part(numbers: Mapping[Place, int]) -> dict[Any, int]:
    return {TopicPartition(*place): number for place, number in numbers.items()}
