"""What is stored of demand: the measurement of every window that holds. One function per query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from shared.events.pricing import DemandMeasured
from shared.messages import Message
from shared.postgres import Connection, Database, Row, Tx, columns

KEEP_DAYS = (
    30  # after the last measurement, in real time: a replay's windows are as old as its orders, and stay as long
)
FORGET_AT_ONCE = 5_000

# Within a generation a count only grows: a smaller figure is an earlier one, or was begun again from zero.
SAVE = """
INSERT INTO demand AS known (sku, window_start, window_end, units, orders, generation, measured_at)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::int[],
                     $7::timestamptz[])
ON CONFLICT (sku, window_start) DO UPDATE
SET window_end = excluded.window_end, units = excluded.units, orders = excluded.orders,
    generation = excluded.generation, measured_at = excluded.measured_at
WHERE (known.generation, known.units, known.measured_at) < (excluded.generation, excluded.units, excluded.measured_at)
"""

FORGET = """
DELETE FROM demand WHERE (sku, window_start) IN (
    SELECT sku, window_start FROM demand WHERE measured_at < now() - make_interval(days => $1)
    ORDER BY measured_at LIMIT $2
)
"""

# Newest first; the cursor names the last window seen.
WINDOWS = """
SELECT sku, window_start, window_end, units, orders, measured_at FROM demand
WHERE sku = ANY($1::text[]) AND ($2::timestamptz IS NULL OR (window_start, sku) < ($2, $3::text))
ORDER BY window_start DESC, sku DESC LIMIT $4
"""

BETWEEN = """
SELECT sku, window_start, window_end, units, orders, measured_at FROM demand
WHERE sku = $1 AND window_start >= $2 AND window_start < $3 ORDER BY window_start DESC
"""

LENGTH = """
SELECT extract(epoch FROM window_end - window_start)::bigint FROM demand
WHERE sku = $1 AND window_start <= $2 ORDER BY window_start DESC LIMIT 1
"""

Measurements = Mapping[tuple[str, datetime], Message[DemandMeasured]]


def best(batch: Iterable[Message[DemandMeasured]]) -> Measurements:
    """The measurement of each window that holds; a batch may have several, in any order."""
    found: dict[tuple[str, datetime], Message[DemandMeasured]] = {}
    for message in batch:
        window = (message.event.sku, message.event.window_start)
        if window not in found or _rank(found[window]) < _rank(message):
            found[window] = message
    return found


def _rank(message: Message[DemandMeasured]) -> tuple[int, int, datetime]:
    return message.event.generation, message.event.units, message.recorded_at


async def save(tx: Tx, measurements: Measurements) -> None:
    """Rows are taken in the order of SKU and window, so that two batches cannot deadlock."""
    rows = [
        (one.event.sku, one.event.window_start, one.event.window_end, one.event.units, one.event.orders,
         one.event.generation, one.recorded_at)
        for _, one in sorted(measurements.items(), key=lambda item: item[0])
    ]  # fmt: skip
    if rows:
        await tx.db.execute(SAVE, *columns(rows))


async def forget(database: Database) -> bool:
    """Delete some of the windows that nobody has measured for a long time; True if there may be others."""
    async with database.transaction() as tx:
        done = await tx.db.execute(FORGET, KEEP_DAYS, FORGET_AT_ONCE)
    return done == f"DELETE {FORGET_AT_ONCE}"


async def windows(db: Connection, skus: Sequence[str], after: tuple[datetime, str] | None, limit: int) -> Sequence[Row]:
    start, sku = after or (None, "")
    return await db.fetch(WINDOWS, skus, start, sku, limit)


async def between(db: Connection, sku: str, start: datetime, end: datetime) -> Sequence[Row]:
    """Windows of the SKU that begin from ``start`` to before ``end``; those without demand have no row."""
    return await db.fetch(BETWEEN, sku, start, end)


async def window_seconds(db: Connection, sku: str, at: datetime) -> int | None:
    """How long the SKU's windows are by then; None if nobody has asked for it yet."""
    return await db.fetchval(LENGTH, sku, at)
