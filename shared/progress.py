"""How far a consumer has come, and what it has seen: kept in the transaction of the effect.

``WHERE next_offset = old`` fences a consumer that lost its partition to another: its transaction fails as a whole.
Batches of a consumer share its turn, each on partitions of its own; a redrive (``alone``) waits for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from shared.postgres import Connection

Place = tuple[str, int]  # topic, partition

LOAD_OFFSETS = """
SELECT topic, partition, next_offset FROM consumer_offsets WHERE consumer = $1
"""

START_OFFSETS = """
INSERT INTO consumer_offsets (consumer, topic, partition, start_offset, next_offset)
SELECT $1, topic, partition, at, at FROM unnest($2::text[], $3::int[], $4::bigint[]) AS n (topic, partition, at)
ON CONFLICT DO NOTHING
"""

ADVANCE_OFFSETS = """
UPDATE consumer_offsets AS o
SET next_offset = n.new, applied = applied + n.applied_, duplicate = duplicate + n.duplicate_,
    skipped = skipped + n.skipped_, dead_lettered = dead_lettered + n.dead_
FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[])
     AS n (topic, partition, old, new, applied_, duplicate_, skipped_, dead_)
WHERE o.consumer = $1 AND o.topic = n.topic AND o.partition = n.partition AND o.next_offset = n.old
"""

ENTER_INBOX = """
WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(hashtext('isthmus.turn'), hashtext($1)))
INSERT INTO inbox (day, consumer, event_id)
SELECT n.day, $1, n.event_id FROM turn CROSS JOIN unnest($2::date[], $3::uuid[]) AS n (day, event_id)
ON CONFLICT DO NOTHING RETURNING event_id
"""

ALONE = "SELECT pg_advisory_xact_lock(hashtext('isthmus.turn'), hashtext($1))"


class FencedError(Exception):
    """Another consumer has advanced this partition, or our last commit's answer was lost: read the offsets anew."""


@dataclass
class Step:
    """What one batch did to one partition."""

    old: int
    new: int
    applied: int = 0
    duplicate: int = 0
    skipped: int = 0
    dead_lettered: int = 0


async def load(connection: Connection, consumer: str) -> dict[Place, int]:
    return {
        (row["topic"], row["partition"]): row["next_offset"] for row in await connection.fetch(LOAD_OFFSETS, consumer)
    }


async def start(connection: Connection, consumer: str, offsets: Mapping[Place, int]) -> None:
    """Enter partitions read for the first time, from the given offset."""
    places = list(offsets)
    await connection.execute(
        START_OFFSETS, consumer, [topic for topic, _ in places], [partition for _, partition in places],
        [offsets[place] for place in places],
    )  # fmt: skip


async def advance(connection: Connection, consumer: str, steps: Mapping[Place, Step]) -> None:
    """Advance every partition of a batch, all or none; raises FencedError when one is not where it was left."""
    places = sorted(steps)
    done = [steps[place] for place in places]
    status = await connection.execute(
        ADVANCE_OFFSETS, consumer, [topic for topic, _ in places], [partition for _, partition in places],
        [step.old for step in done], [step.new for step in done], [step.applied for step in done],
        [step.duplicate for step in done], [step.skipped for step in done], [step.dead_lettered for step in done],
    )  # fmt: skip
    if status != f"UPDATE {len(places)}":
        raise FencedError(f"{consumer}: {status} of {len(places)} partitions")


async def alone(connection: Connection, consumer: str) -> None:
    """Until this transaction ends ``consumer`` applies nothing else: what it read before is what it finds.

    A batch may rely on being the only one to act on its keys, since it has their partition. So must whoever applies
    a message in another way.
    """
    await connection.execute(ALONE, consumer)


async def unseen(connection: Connection, consumer: str, events: Iterable[tuple[date, UUID]]) -> set[UUID]:
    """Mark events as seen by ``consumer`` and return those that were not. The day is that of ``recorded_at``, UTC."""
    seen: Sequence[tuple[date, UUID]] = sorted(set(events))  # one order, so that two consumers cannot deadlock
    rows = await connection.fetch(ENTER_INBOX, consumer, [day for day, _ in seen], [id_ for _, id_ in seen])
    return {row["event_id"] for row in rows}
