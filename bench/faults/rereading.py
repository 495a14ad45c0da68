"""Everything is read again from the beginning: nothing may change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import asyncpg

from bench.evidence import KERNEL
from bench.faults.dumps import differences, digests
from bench.faults.scene import Scene
from bench.platform import SERVICES, PlatformError, database
from deploy.local.stack import Stack
from shared.kafka import Group, bounds, groups, rewind

READ = "SELECT consumer, topic, partition, next_offset FROM consumer_offsets"
REWIND = "UPDATE consumer_offsets SET next_offset = start_offset"


async def read_again(scene: Scene) -> Sequence[str]:
    """Reset the offsets in Kafka, then those in the databases; what has changed each time."""
    before = await digests(scene.stack)
    await _stop(scene.stack)
    for group in await _left(scene.stack):
        await rewind(scene.stack.bootstrap_servers, group)
        scene.did("consumer groups reset to 0")
    await _start(scene.stack)
    wrong = differences(before, await _at_rest(scene))
    await _stop(scene.stack)
    for service in SERVICES:
        async with database(scene.stack, service) as connection:
            done = await connection.execute(REWIND)
        scene.facts["offsets in databases reset"] = scene.facts.get("offsets in databases reset", 0) + int(done[7:])
    await _start(scene.stack)
    return [*wrong, *differences(before, await _at_rest(scene))]


async def _left(stack: Stack) -> list[Group]:
    """The groups of the services, once they have no members any more: a stopped member is missed for a while."""
    until = time.monotonic() + 60
    while True:
        found = [one for one in await groups(stack.bootstrap_servers) if one.name.startswith("isthmus.")]
        if not any(one.members for one in found) or time.monotonic() > until:
            return [one for one in found if one.committed]
        await asyncio.sleep(1)


async def _stop(stack: Stack) -> None:
    for service in SERVICES:
        await asyncio.to_thread(stack.stop, service)


async def _start(stack: Stack) -> None:
    await asyncio.to_thread(stack.up, SERVICES)


async def _at_rest(scene: Scene) -> dict[str, str]:
    """The digests, when every consumer has read its topics to their ends."""
    until, left = time.monotonic() + 180, ["?"]
    while left:
        if time.monotonic() > until:
            raise PlatformError(f"not read to the end again: {left[:3]}")
        with suppress(asyncpg.PostgresError, OSError):
            left = await _unread(scene.stack)
        await asyncio.sleep(1)
    return await digests(scene.stack)


async def _unread(stack: Stack) -> list[str]:
    left: list[str] = []
    for service in SERVICES:
        async with database(stack, service) as connection:
            rows = await connection.fetch(READ)
            if await connection.fetchval(KERNEL["outbox"]):
                left.append(f"{service}: outbox")
        ends = await bounds(stack.bootstrap_servers, {row["topic"] for row in rows})
        left += [
            f"{service}: {row['consumer']} {row['topic']}/{row['partition']}"
            for row in rows
            if row["next_offset"] < ends[row["topic"], row["partition"]][1]
        ]
    return left
