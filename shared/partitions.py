"""Which partition a key belongs to: the default of Kafka's own clients, murmur2."""

from __future__ import annotations

from typing import Any

from aiokafka.partitioner import murmur2  # pyright: ignore[reportUnknownVariableType]

from shared.messages import Topic


def partition_of(key: str, topic: Topic[Any]) -> int:
    """The partition of ``topic`` in which messages with ``key`` are."""
    hashed: int = murmur2(key.encode())
    return (hashed & 0x7FFFFFFF) % topic.partitions
