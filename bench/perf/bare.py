"""aiokafka without anything around it: what a benchmark reads and writes by itself. Untyped, so only here."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from shared.envelope import Record

READ_BYTES = 8 * 1_048_576


class Reader:
    """Reads all partitions of some topics, in no group."""

    def __init__(self, kafka: Any):
        self._kafka = kafka

    async def read(self, wait_ms: int = 1000) -> list[Record]:
        """What has come, or nothing after so long."""
        fetched = await self._kafka.getmany(timeout_ms=wait_ms)
        return [cast(Record, record) for records in fetched.values() for record in records]


@asynccontextmanager
async def reader(
    bootstrap_servers: str, topics: Iterable[tuple[str, int]], *, patient: bool = False
) -> AsyncGenerator[Reader]:
    """From the present end of topics, each with its number of partitions; with ``patient`` in large pieces, later."""
    kafka = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, enable_auto_commit=False, auto_offset_reset="latest",
        max_partition_fetch_bytes=READ_BYTES, max_poll_records=None,
        fetch_min_bytes=262_144 if patient else 1, fetch_max_wait_ms=100 if patient else 500,
    )  # fmt: skip
    await kafka.start()
    try:
        parts = [TopicPartition(name, number) for name, partitions in topics for number in range(partitions)]
        kafka.assign(parts)
        for part, end in (await kafka.end_offsets(parts)).items():
            kafka.seek(part, end)
        yield Reader(kafka)
    finally:
        await kafka.stop()


class Writer:
    """Writes with the durability of the platform: idempotent, acknowledged by all replicas."""

    def __init__(self, kafka: Any):
        self._kafka = kafka

    async def write(self, records: Sequence[tuple[str, bytes, bytes, Sequence[tuple[str, bytes]]]]) -> None:
        """Returns when all are acknowledged; each is topic, key, value and headers."""
        futures: list[Any] = [
            await self._kafka.send(topic, value, key, headers=headers) for topic, key, value, headers in records
        ]
        await asyncio.gather(*futures)


@asynccontextmanager
async def writer(bootstrap_servers: str) -> AsyncGenerator[Writer]:
    kafka = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True, linger_ms=0,
        max_batch_size=1_048_576, max_request_size=READ_BYTES,
    )  # fmt: skip
    await kafka.start()
    try:
        yield Writer(kafka)
    finally:
        await kafka.stop()
