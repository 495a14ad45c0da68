"""A process of the floor: it moves what one service must write and read for orders, and does nothing else.

In: every record that the service writes, with its key, value and headers in their sizes, to topics with as many
partitions, idempotent and with acks=all; every record that it reads, once per consumer, with the place that it has
reached written in a transaction per poll; every row that it inserts, in a table with a primary key by COPY; one change
of each row that is changed later, and the deletion of each that does not stay (the outbox is such a table, and the
inbox one that stays); two transactions per batch, fsync and synchronous_commit on.

Not in: HTTP, JSON, checking, sealing, any decision; indexes beside the primary key, constraints; second changes of a
row, and changes of rows that many orders share (stock levels); the order in which services must wait for each other.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, cast
from uuid import UUID

import asyncpg
import uuid_utils
import uvloop

from bench import machine
from bench.perf.bare import Writer, reader, writer
from bench.perf.frozen import Records, Rows

BATCH = 500  # orders per transaction
AT_ONCE = 2  # batches on their way
ROW_OVERHEAD = 48  # of a row of a key and a body
PARTITIONS = 12
TABLE = "floor_{}"
CREATE = "CREATE TABLE {} (id uuid PRIMARY KEY, body bytea NOT NULL)"
PLACES = "CREATE TABLE floor_places (consumer text PRIMARY KEY, read bigint NOT NULL)"
REACHED = """
INSERT INTO floor_places VALUES ($1, $2) ON CONFLICT (consumer) DO UPDATE SET read = excluded.read
"""
CHANGE = "UPDATE {} SET body = $2 WHERE id = ANY($1::uuid[])"
DELETE = "DELETE FROM {} WHERE id = ANY($1::uuid[])"


@dataclass(frozen=True)
class Part:
    """One service's part, and how many records of each topic an order makes, of all services."""

    bootstrap_servers: str
    database_url: str
    writes: dict[str, Records]
    reads: dict[str, list[str]]
    rows: dict[str, Rows]
    records: dict[str, float]


def main(pipe: Connection, part: Part) -> None:
    """Says "ready"; then, for each number of orders, moves them and says how long it took and how much CPU."""
    uvloop.run(_serve(pipe, part))


def count(per_order: float, orders: int) -> int:
    """How many of something a number of orders makes."""
    return round(per_order * orders)


async def _serve(pipe: Connection, part: Part) -> None:
    loop = asyncio.get_running_loop()
    async with asyncpg.create_pool(part.database_url, min_size=4, max_size=12) as pool, writer(
        part.bootstrap_servers
    ) as log:  # fmt: skip
        for name in part.rows:
            await pool.execute(CREATE.format(TABLE.format(name)))
        await pool.execute(PLACES)
        pipe.send("ready")
        while True:
            try:
                orders = cast(int, await loop.run_in_executor(None, pipe.recv))
            except EOFError:
                return
            ready = [asyncio.Event() for _ in part.reads]
            reading = [
                asyncio.create_task(_read(pool, part, consumer, topics, orders, event))
                for (consumer, topics), event in zip(part.reads.items(), ready, strict=True)
            ]
            for event in ready:
                await event.wait()
            pipe.send("set")
            await loop.run_in_executor(None, pipe.recv)
            began, before = time.monotonic(), machine.cpu_of_self()
            await asyncio.gather(_write(pool, log, part, orders), *reading)
            pipe.send((time.monotonic() - began, machine.cpu_of_self() - before))


async def _write(pool: asyncpg.Pool[asyncpg.Record], log: Writer, part: Part, orders: int) -> None:
    dice = random.Random(0)
    values = {name: dice.randbytes(one.value) for name, one in part.writes.items()}
    headers = {
        name: [("header", dice.randbytes(one.headers // one.header_count - 6))] * one.header_count
        for name, one in part.writes.items()
    }
    bodies = {name: dice.randbytes(max(1, one.bytes - ROW_OVERHEAD)) for name, one in part.rows.items()}
    places = asyncio.Semaphore(AT_ONCE)

    async def move(size: int) -> None:
        async with places:
            ids = {name: _ids(count(one.inserted, size)) for name, one in part.rows.items()}
            async with pool.acquire() as db:
                async with db.transaction():
                    for name, of_table in ids.items():
                        rows = [(id_, bodies[name]) for id_ in of_table]
                        await db.copy_records_to_table(TABLE.format(name), records=rows)
                keys = [str(id_).encode() for id_ in _ids(size)]
                await log.write(
                    [
                        (floor_topic(name), keys[number % size], values[name], headers[name])
                        for name, one in part.writes.items()
                        for number in range(count(one.records, size))
                    ]
                )
                async with db.transaction():
                    for name, one in part.rows.items():
                        table = TABLE.format(name)
                        if changed := ids[name][: count(one.updated, size)]:
                            await db.execute(CHANGE.format(table), changed, bodies[name])
                        if gone := ids[name][: count(one.deleted, size)]:
                            await db.execute(DELETE.format(table), gone)

    await asyncio.gather(*(move(min(BATCH, orders - first)) for first in range(0, orders, BATCH)))


async def _read(
    pool: asyncpg.Pool[asyncpg.Record],
    part: Part,
    consumer: str,
    topics: Sequence[str],
    orders: int,
    ready: asyncio.Event,
) -> None:
    wanted = sum(
        count(part.records[name], min(BATCH, orders - first)) for name in topics for first in range(0, orders, BATCH)
    )
    async with reader(
        part.bootstrap_servers, [(floor_topic(name), PARTITIONS) for name in topics], patient=True
    ) as log:
        ready.set()
        while wanted > 0:
            if records := await log.read():
                wanted -= len(records)
                await pool.execute(REACHED, consumer, wanted)


def floor_topic(name: str) -> str:
    return f"floor.{name}"


def _ids(number: int) -> list[Any]:
    return [UUID(bytes=uuid_utils.uuid7().bytes) for _ in range(number)]
