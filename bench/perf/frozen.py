"""What an order needs: its records in Kafka and its rows in Postgres, kept in frozen.json. The floor moves them.

``python -m bench.perf.frozen`` records the list anew from a real run of single POSTs, paid by the channel. It is
frozen, so that a change which writes less comes nearer to the floor, and does not lower it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bench.perf.stage import Stage
from bench.platform import SERVICES, database
from deploy.local.stack import Stack
from shared.kafka import read_all
from shared.topics import DOMAIN_TOPICS

FILE = Path(__file__).with_name("frozen.json")
RARE = 0.02  # per order: what is less often is housekeeping, and left out
BOOKKEEPING = ("consumer_offsets", "relayed", "reconciliation_walks", "findings", "payments_seen", "orders_read")

# Rows by what happened to them; a partition counts as its table.
COUNTS = """
SELECT coalesce(i.inhparent, s.relid)::regclass::text AS name, sum(n_tup_ins)::bigint AS inserted,
       sum(n_tup_upd)::bigint AS updated, sum(n_tup_del)::bigint AS deleted
FROM pg_stat_user_tables s LEFT JOIN pg_inherits i ON i.inhrelid = s.relid GROUP BY 1
"""
PASSING = {"order": ("outbox", "sealed_buyers")}  # tables whose rows do not stay
ROW_BYTES = "SELECT coalesce(avg(pg_column_size(t)), 0)::int FROM (SELECT * FROM {} LIMIT 2000) AS t"


Counts = tuple[int, int, int]


@dataclass(frozen=True)
class Records:
    """Of one topic, per order; sizes in bytes, of one record on average."""

    records: float
    value: int
    headers: int
    header_count: int


@dataclass(frozen=True)
class Rows:
    """Of one table, per order; bytes of one row on average. A row that is changed counts as changed once."""

    inserted: float
    updated: float
    deleted: float
    bytes: int


@dataclass
class Needs:
    """``writes`` by service and topic, ``reads`` by service and consumer (topics), ``rows`` by service and table."""

    orders: int
    writes: dict[str, dict[str, Records]] = field(default_factory=dict[str, dict[str, Records]])
    reads: dict[str, dict[str, list[str]]] = field(default_factory=dict[str, dict[str, list[str]]])
    rows: dict[str, dict[str, Rows]] = field(default_factory=dict[str, dict[str, Rows]])


def load(path: Path = FILE) -> Needs:
    content = orjson.loads(path.read_bytes())
    return Needs(
        content["orders"],
        {who: {name: Records(**one) for name, one in topics.items()} for who, topics in content["writes"].items()},
        content["reads"],
        {who: {name: Rows(**one) for name, one in tables.items()} for who, tables in content["rows"].items()},
    )


async def record(stage: Stage, *, rate: float, seconds: float) -> Needs:
    """Count what a load leaves behind."""
    await stage.prepare()
    before = await _counts(stage.stack)
    known = {
        (one.topic, one.partition, one.offset) for one in await read_all(stage.stack.bootstrap_servers, DOMAIN_TOPICS)
    }
    passing = {name: asyncio.create_task(_passing(stage.stack, name)) for name in SERVICES}
    trial = await stage.run(stage.load(rate=rate, seconds=seconds))
    sizes = {name: await _ended(task) for name, task in passing.items()}
    after = await _counts(stage.stack)
    needs = Needs(trial.load.orders)
    await _records(stage.stack, known, needs)
    for service in SERVICES:
        async with database(stage.stack, service) as connection:
            needs.reads[service] = await _readers(connection, needs)
            needs.rows[service] = await _rows(connection, before[service], after[service], needs.orders, sizes[service])
    return needs


async def _counts(stack: Stack) -> dict[str, dict[str, Counts]]:
    await asyncio.sleep(12)  # an idle session tells the statistics within ten seconds
    found: dict[str, dict[str, Counts]] = {}
    for service in SERVICES:
        async with database(stack, service) as connection:
            found[service] = {row[0]: (row[1], row[2], row[3]) for row in await connection.fetch(COUNTS)}
    return found


async def _records(stack: Stack, known: set[tuple[str, int, int]], needs: Needs) -> None:
    seen: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for one in await read_all(stack.bootstrap_servers, DOMAIN_TOPICS):
        if (one.topic, one.partition, one.offset) not in known:
            size = sum(len(name) + len(value) for name, value in one.headers)
            seen[one.topic].append((len(one.value or b""), size, len(one.headers)))
    for topic in DOMAIN_TOPICS:
        if (found := seen[topic.name]) and len(found) / needs.orders > RARE:
            value, headers, count = (round(sum(column) / len(found)) for column in zip(*found, strict=True))
            needs.writes.setdefault(topic.owner, {})[topic.name] = Records(
                round(len(found) / needs.orders, 3), value, headers, count
            )


async def _readers(connection: Any, needs: Needs) -> dict[str, list[str]]:
    written = {topic for topics in needs.writes.values() for topic in topics}
    readers: dict[str, list[str]] = {}
    for consumer, topic in await connection.fetch(
        "SELECT DISTINCT consumer, topic FROM consumer_offsets ORDER BY 1, 2"
    ):
        if topic in written:
            readers.setdefault(consumer, []).append(topic)
    return readers


async def _rows(
    connection: Any, before: Mapping[str, Counts], after: Mapping[str, Counts], orders: int, sizes: Mapping[str, int]
) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for name, counts in sorted(after.items()):
        inserted, updated, deleted = (
            round((now - then) / orders, 3) for now, then in zip(counts, before.get(name, (0, 0, 0)), strict=True)
        )
        if inserted > RARE and name not in BOOKKEEPING:
            size = sizes.get(name) or await connection.fetchval(ROW_BYTES.format(name))
            found[name] = Rows(inserted, min(updated, inserted), min(deleted, inserted), size)
    return found


async def _passing(stack: Stack, service: str) -> dict[str, int]:
    """The largest average size of rows that do not stay, until cancelled."""
    found: dict[str, int] = {}
    async with database(stack, service) as connection:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                for name in PASSING.get(service, ("outbox",)):
                    size = await connection.fetchval(ROW_BYTES.format(name))
                    found[name] = max(size, found.get(name, 0))
                await asyncio.sleep(0.02)
    return found


async def _ended(task: asyncio.Task[dict[str, int]]) -> dict[str, int]:
    task.cancel()
    return await task


async def _main() -> None:
    async with Stage.open(1, print) as stage:
        needs = await record(stage, rate=60, seconds=30)
    FILE.write_bytes(orjson.dumps(asdict(needs), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    asyncio.run(_main())
