"""How far the platform is behind while a load is on: outboxes, and events not yet consumed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from bench.platform import SERVICES, database
from deploy.local.stack import Stack

PAUSE = 2.0  # seconds between two looks: to count is work for the database that is measured
WAITING = "SELECT count(*) FROM outbox"
SAID = "SELECT topic, partition, next_offset FROM relayed"
READ = "SELECT topic, partition, next_offset FROM consumer_offsets"

Databases = Mapping[str, "asyncpg.Connection[asyncpg.Record]"]


@dataclass(frozen=True)
class Lag:
    """``at`` is of the monotonic clock; the others are counts."""

    at: float
    outbox: int  # events that Kafka does not have yet, of all services
    unread: int  # events in Kafka that a consumer has not applied yet, of all consumers


@contextlib.asynccontextmanager
async def sampled(stack: Stack) -> AsyncGenerator[list[Lag]]:
    """A list that grows by a sample every two seconds until the block ends."""
    samples: list[Lag] = []
    async with contextlib.AsyncExitStack() as opened:
        databases = {name: await opened.enter_async_context(database(stack, name)) for name in SERVICES}
        looking = asyncio.create_task(_look(databases, samples))
        try:
            yield samples
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking


async def _look(databases: Databases, samples: list[Lag]) -> None:
    while True:
        outbox = sum([await database.fetchval(WAITING) for database in databases.values()])
        samples.append(Lag(time.monotonic(), outbox, await _unread(databases)))
        await asyncio.sleep(PAUSE)


async def _unread(databases: Databases) -> int:
    read = [row for database in databases.values() for row in await database.fetch(READ)]
    said = {(row[0], row[1]): row[2] for database in databases.values() for row in await database.fetch(SAID)}
    return sum(max(0, said.get((row[0], row[1]), 0) - row[2]) for row in read)


def summary(samples: Sequence[Lag]) -> dict[str, int]:
    """The most that was seen."""
    return {
        "outbox rows, most": max((one.outbox for one in samples), default=0),
        "unread events, most": max((one.unread for one in samples), default=0),
    }
