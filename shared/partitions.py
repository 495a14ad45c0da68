"""Which partition a key belongs to: the default of Kafka's own clients, murmur2."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from aiokafka.partitioner import murmur2  # pyright: ignore[reportUnknownVariableType]

from shared.messages import Topic


def partition_of(key: str, topic: Topic[Any]) -> int:
    """The partition of ``topic`` in which messages with ``key`` are."""
    return partition_among(key, topic.partitions)


def partition_among(key: str, partitions: int) -> int:
    """The same where the number of partitions is known from elsewhere."""
    return (_hash(key) & 0x7FFFFFFF) % partitions


@lru_cache(maxsize=20_000)
def _hash(key: str) -> int:
    """Kept, since an order's events come soon after each other, and this is Python."""
    return murmur2(key.encode())
