"""Messages put aside, byte for byte, with where they came from and why."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from uuid import UUID, uuid5

from shared.envelope import Record
from shared.postgres import Tx

NAMESPACE = UUID("6d1f7f0e-2b0c-5c39-9a53-6f0a0a4d2a11")


async def put_aside(tx: Tx, topic: str, record: Record, *, service: str, consumer: str, reason: str) -> None:
    """Send ``record`` to the dead letters when the transaction commits; the same record has the same id each time."""
    origin = {
        "dlq_consumer": f"{service}.{consumer}",
        "dlq_topic": record.topic,
        "dlq_partition": str(record.partition),
        "dlq_offset": str(record.offset),
        "dlq_reason": reason,
    }
    headers = [*record.headers, *((name, value.encode()) for name, value in origin.items())]
    await tx.dead_letter(
        topic, _text((record.key or b"").decode(errors="replace")), record.value or b"",
        [[_text(name), base64.b64encode(value or b"").decode()] for name, value in headers],
        _identity(consumer, record.topic, record.partition, record.offset),
    )  # fmt: skip


def identity(service: str, headers: Mapping[str, str]) -> UUID:
    """The id that a dead letter of ``service`` had in the outbox; KeyError or ValueError if it is no such one."""
    owner, _, consumer = headers["dlq_consumer"].partition(".")
    if owner != service:
        raise ValueError(f"put aside by {owner}")
    return _identity(consumer, headers["dlq_topic"], int(headers["dlq_partition"]), int(headers["dlq_offset"]))


def _identity(consumer: str, topic: str, partition: int, offset: int) -> UUID:
    return uuid5(NAMESPACE, f"{consumer}/{topic}/{partition}/{offset}")


def _text(name: str) -> str:
    """As Postgres can store it: a text holds no NUL."""
    return name.replace("\x00", "\ufffd")
