"""A record that no service has written, in a topic of the platform."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from shared.envelope import headers_for
from shared.kafka import Producer
from shared.messages import Topic
from shared.tracing import Trace


async def put(
    bootstrap_servers: str, topic: Topic[Any], type_: str, key: str, value: bytes, sequence: int = 1
) -> tuple[UUID, Any]:
    """The id that it says it has, and where Kafka has it: a RecordMetadata of aiokafka."""
    id_ = uuid4()
    headers = headers_for(
        id=id_, source=topic.source, type=type_, recorded_at=datetime.now(UTC), key=key, sequence=sequence,
        correlation_id=str(id_), causation_id=None, traceparent=str(Trace.new()),
    )  # fmt: skip
    producer = Producer(bootstrap_servers)
    await producer.start()
    try:
        return id_, await (await producer.send_one(topic.name, key, value, headers))
    finally:
        await producer.stop()
