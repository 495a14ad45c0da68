"""What is stored of points and of business time. Entries are written under the lock of their customer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from services.customer.registry import Registry
from services.customer.tiers import WINDOW
from shared.postgres import Tx

CLOCK = "SELECT at FROM business_clock"

MOVE_CLOCK = """
INSERT INTO business_clock (at) VALUES ($1)
ON CONFLICT (only_row) DO UPDATE SET at = excluded.at WHERE business_clock.at < excluded.at
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
WHERE tier_review_at <= (SELECT at FROM business_clock) AND data_key IS NOT NULL ORDER BY tier_review_at LIMIT $1
"""

Notes = Mapping[UUID, tuple[bytes, str]]  # by entry: the reason, encrypted, and who gave it


async def load(tx: Tx, registry: Registry, customers: Iterable[UUID], earliest: datetime | None = None) -> None:
    """The business clock, and what these customers, locked already, earned within a year before it.

    ``earliest`` is the oldest business time at which a tier is decided, where that may lie before the clock.
    """
    registry.clock = await tx.db.fetchval(CLOCK)
    times = [one for one in (registry.clock, earliest) if one is not None]
    if times:
        for row in await tx.db.fetch(EARNED, sorted(set(customers)), min(times) - WINDOW):
            registry.earned.setdefault(row["customer_id"], []).append((row["occurred_at"], row["points"]))


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
