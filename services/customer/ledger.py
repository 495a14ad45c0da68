"""What is stored of points and of business time. Entries are written under the lock of their customer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from services.customer.registry import Registry
from services.customer.tiers import WINDOW
from shared.postgres import Database, Tx
from shared.topics import ORDERS

CLOCK = "SELECT at, read_to FROM business_clock"

MOVE_CLOCK = """
INSERT INTO business_clock (at) VALUES ($1)
ON CONFLICT (only_row) DO UPDATE SET at = excluded.at WHERE business_clock.at < excluded.at
"""

# Only while somebody waits for it, so that nothing is written while nothing happens.
NOTE_READ = """
INSERT INTO orders_read (partition, until)
SELECT partition, $2 FROM unnest($1::int[]) AS n (partition)
WHERE EXISTS (SELECT FROM business_clock WHERE next IS DISTINCT FROM read_to AND next_since <= $2) ORDER BY partition
ON CONFLICT (partition) DO UPDATE SET until = excluded.until WHERE orders_read.until < excluded.until
"""

READ_ON = """
UPDATE business_clock SET read_to = next, next = at, next_since = clock_timestamp()
WHERE read_to IS DISTINCT FROM at
  AND (next IS NULL OR next = read_to OR (SELECT count(*) FROM orders_read WHERE until >= next_since) >= $1)
"""

EARNED = """
SELECT customer_id, occurred_at, points FROM points_entries
WHERE customer_id = ANY($1::uuid[]) AND kind = 'earned' AND occurred_at > $2
"""

SAVE_ENTRIES = """
INSERT INTO points_entries (entry_id, customer_id, points, kind, order_id, reason, actor, occurred_at)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::uuid[], $6::bytea[], $7::text[],
                     $8::timestamptz[])
"""

DUE = """
SELECT customer_id FROM customers
WHERE tier_review_at <= (SELECT read_to FROM business_clock) AND data_key IS NOT NULL ORDER BY tier_review_at LIMIT $1
"""

Notes = Mapping[UUID, tuple[bytes, str]]  # by entry: the reason, encrypted, and who gave it


async def load(tx: Tx, registry: Registry, customers: Iterable[UUID], earliest: datetime | None = None) -> None:
    """The business clock, and what these customers, locked already, earned within a year before it.

    ``earliest`` is the oldest business time at which a tier is decided, where that may lie before the clock.
    """
    if row := await tx.db.fetchrow(CLOCK):
        registry.clock, registry.read_to = row["at"], row["read_to"]
    times = [one for one in (registry.clock, registry.read_to, earliest) if one is not None]
    if times:
        for row in await tx.db.fetch(EARNED, sorted(set(customers)), min(times) - WINDOW):
            registry.earned.setdefault(row["customer_id"], []).append((row["occurred_at"], row["points"]))


async def note_read(tx: Tx, until: datetime, partitions: Sequence[int]) -> None:
    """All that was in the log of these partitions of orders at ``until`` (database time) has been read."""
    await tx.db.execute(NOTE_READ, partitions, until)


async def read_on(database: Database) -> None:
    """Let reviews go as far as the business clock stood when the log was last read to its end, in every partition.

    Guarantee: before ``read_to`` comes to a business time, every settlement has been read that was in the log when the
    clock was seen there. So neither catching up nor a replay, however unevenly the partitions are read, lowers a tier
    that points already in the log hold up. What is said later, of an earlier business time, may: among live orders
    that is a matter of seconds. A partition in which nothing happens counts as read; one that nobody reads holds all
    reviews back. A transaction of its own: whoever settles locks customers first and then the clock.
    """
    async with database.transaction() as tx:
        await tx.db.execute(READ_ON, ORDERS.partitions)


async def due(tx: Tx, limit: int) -> list[UUID]:
    """Customers, those due longest first, whose tier is to be looked at again; nothing is locked."""
    return [row["customer_id"] for row in await tx.db.fetch(DUE, limit)]


async def save(tx: Tx, registry: Registry, notes: Notes) -> None:
    """Add the entries, and move the clock: last, so that its row is locked for a moment only."""
    if registry.entries:
        noted = [notes.get(one.entry_id, (None, None)) for one in registry.entries]
        await tx.db.execute(
            SAVE_ENTRIES, [one.entry_id for one in registry.entries], [one.customer_id for one in registry.entries],
            [one.points for one in registry.entries], [one.kind for one in registry.entries],
            [one.order_id for one in registry.entries], [reason for reason, _ in noted], [actor for _, actor in noted],
            [one.occurred_at for one in registry.entries],
        )  # fmt: skip
    if registry.clock_moved:
        await tx.db.execute(MOVE_CLOCK, registry.clock)
