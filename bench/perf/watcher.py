"""The process that sees events come out of Kafka, as a subscriber would, and notes when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection

import uvloop

from bench import machine
from bench.perf.bare import Reader, reader
from shared.envelope import Record
from shared.topics import ALL_TOPICS

Seen = list[tuple[str, str, float]]  # key, type as in OrderConfirmed, time of the monotonic clock


def main(pipe: Connection, bootstrap_servers: str, wanted: Mapping[str, frozenset[str]]) -> None:
    """``wanted`` are names of events by topic. Says "ready"; then, when asked, what it has seen since, and its CPU."""
    uvloop.run(_watch(pipe, bootstrap_servers, wanted))


async def _watch(pipe: Connection, bootstrap_servers: str, wanted: Mapping[str, frozenset[str]]) -> None:
    topics = [(topic.name, topic.partitions) for topic in ALL_TOPICS if topic.name in wanted]
    seen: Seen = []
    async with reader(bootstrap_servers, topics) as log:
        pipe.send("ready")
        reading = asyncio.create_task(_read(log, wanted, seen))
        loop = asyncio.get_running_loop()
        try:
            while True:
                await loop.run_in_executor(None, pipe.recv)
                if reading.done():
                    reading.result()
                pipe.send((seen.copy(), machine.cpu_of_self()))
                seen.clear()
        except EOFError:
            reading.cancel()


async def _read(log: Reader, wanted: Mapping[str, frozenset[str]], seen: Seen) -> None:
    while True:
        records = await log.read()
        now = time.monotonic()
        for record in records:
            name = name_of(record)
            if name in wanted[record.topic]:
                seen.append(((record.key or b"").decode(), name, now))


def name_of(record: Record) -> str:
    """OrderConfirmed of isthmus.order.OrderConfirmed.v1."""
    for header, value in record.headers:
        if header == "ce_type":
            return value.decode().split(".")[-2]
    return ""
