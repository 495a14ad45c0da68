"""Dead letters as they lie in their topic: what was put aside, by whom, why, and the record that it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from shared.kafka import KafkaError, Written, read_partition
from shared.problems import Problem
from shared.topics import dead_letters

PATIENCE = 20.0  # seconds that Kafka may take for the next record
OWN = ("dlq_consumer", "dlq_topic", "dlq_partition", "dlq_offset", "dlq_reason")  # the last headers, as put_aside wrote


@dataclass(frozen=True)
class Original:
    """The record as its consumer had it; a key that was no text is as near to it as Postgres could store."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]

    def header(self, name: str) -> str | None:
        """The last header of this name, as text."""
        found = [value for header, value in self.headers if header == name]
        return found[-1].decode(errors="replace") if found else None


@dataclass(frozen=True)
class DeadLetter:
    """``offset`` in the dead-letter topic is what operators call it by; ``at`` is when it came to Kafka."""

    offset: int
    at: datetime
    consumer: str
    reason: str
    original: Original

    @property
    def event_id(self) -> UUID | None:
        """The id of the event, where the record has one that can be read."""
        try:
            return UUID(self.original.header("ce_id") or "")
        except ValueError:
            return None


def parse(record: Written, service: str) -> DeadLetter:
    """The dead letter in a record; what ``service`` has not put aside itself has no consumer and no topic."""
    headers = [(name, value or b"") for name, value in record.headers]
    told = {name: value.decode(errors="replace") for name, value in headers[-len(OWN) :]}
    if tuple(told) == OWN:
        headers = headers[: -len(OWN)]
    else:
        told = {}
    original = Original(
        told.get("dlq_topic", ""), int(told.get("dlq_partition", -1)), int(told.get("dlq_offset", -1)),
        record.key or b"", record.value or b"", headers,
    )  # fmt: skip
    at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    consumer, reason = told.get("dlq_consumer", ""), told.get("dlq_reason", "put there by somebody else")
    return DeadLetter(record.offset, at, consumer.removeprefix(f"{service}."), reason, original)


@dataclass(frozen=True)
class Letters:
    """The dead letters of a service."""

    bootstrap_servers: str
    service: str

    async def read(
        self, *, begin: int = 0, end: int | None = None, last: int | None = None
    ) -> AsyncGenerator[DeadLetter]:
        """Those from offset ``begin`` up to ``end`` (excluded), or the ``last`` of these, oldest first.

        Raises Problem 503 where Kafka does not answer. Close it where it is not read to its end.
        """
        place = (dead_letters(self.service).name, 0)
        try:
            async with aclosing(
                read_partition(self.bootstrap_servers, place, begin=begin, end=end, last=last)
            ) as records:  # fmt: skip
                while (record := await _next(records)) is not None:
                    yield parse(record, self.service)
        except (KafkaError, TimeoutError) as error:
            why = f"Kafka does not answer ({type(error).__name__}); try again"
            raise Problem(503, "Temporarily unavailable", why, headers={"Retry-After": "1"}) from error

    async def at(self, offset: int) -> DeadLetter:
        """The one with this offset. Raises Problem 404 where there is none."""
        async with aclosing(self.read(begin=offset, end=offset + 1)) as found:
            async for letter in found:
                return letter
        raise Problem(404, "Not found", f"{self.service} has no dead letter {offset}")


async def _next(records: AsyncGenerator[Written]) -> Written | None:
    async with asyncio.timeout(PATIENCE):
        return await anext(records, None)
