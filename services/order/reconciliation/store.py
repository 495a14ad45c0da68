"""What is stored of reconciliation: how far the walks have come, what was found; and orders as they are compared."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.order.reconciliation.decisions import Difference, Money
from services.order.state import Order, Parcel
from shared.events.pricing import PricedLine
from shared.postgres import Connection, Row, Tx, columns

KEPT_DAYS = 30  # closed findings

# Another replica that walks is left alone; one that died is waited for until its lease ends.
BEGIN = """
UPDATE reconciliation_walks
SET leased_until = now() + interval '2 minutes', began_at = CASE WHEN position = '' THEN now() ELSE began_at END
WHERE walk = $1 AND leased_until < now()
  AND (position <> '' OR finished_at IS NULL OR finished_at <= now() - $2 * interval '1 second')
RETURNING position, began_at
"""

GO_ON = """
UPDATE reconciliation_walks
SET position = $2, leased_until = '-infinity', finished_at = CASE WHEN $2 = '' THEN now() ELSE finished_at END
WHERE walk = $1
"""

GIVE_UP = "UPDATE reconciliation_walks SET leased_until = '-infinity' WHERE walk = $1"

WALKS = "SELECT walk, began_at, finished_at FROM reconciliation_walks ORDER BY walk"

# What waits in the outbox has not been said yet. Lines are read only where some were cancelled and points depend on it.
_COMPARED = """
SELECT o.order_id, o.channel, o.currency, o.state, o.version, o.partition, o.total, o.cancelled_lines, o.settled,
       o.points_settled, coalesce((o.request ->> 'points')::int, 0) AS points, o.request ->> 'coupon' AS coupon,
       CASE WHEN o.request ->> 'points' <> '0' AND o.cancelled_lines <> '{}' THEN o.priced_lines END AS priced_lines,
       (SELECT jsonb_agg(jsonb_build_object('number', p.number, 'warehouse', p.warehouse, 'items', p.items,
                                            'state', p.state, 'issued', p.issued))
        FROM parcels p WHERE p.order_id = o.order_id) AS parcels,
       coalesce(pay.captured - pay.refunded, 0) AS kept,
       (SELECT coalesce(sum(amount), 0)
        FROM ledger l CROSS JOIN LATERAL unnest(accounts, amounts) AS e (account, amount)
        WHERE l.order_id = o.order_id AND l.currency = o.currency
          AND account IN ('cash', 'provider_fees', 'channel_fees')) AS booked
FROM orders o LEFT JOIN payments pay USING (order_id)
WHERE o.state NOT IN ('placed', 'paying') AND o.changed_at <= now() - $1 * interval '1 second'
  AND NOT EXISTS (SELECT FROM outbox x WHERE x.aggregateid = o.order_id::text)
"""

SLICE = _COMPARED + "AND o.order_id > $2 ORDER BY o.order_id LIMIT $3"

SOME = _COMPARED + "AND o.order_id = ANY($2::uuid[])"

DUE = """
SELECT * FROM findings WHERE closed_at IS NULL AND look_at <= now() AND kind = ANY($1::text[]) ORDER BY look_at LIMIT $2
"""

OPEN = "SELECT finding_id, kind, subject FROM findings WHERE closed_at IS NULL AND subject = ANY($1::text[])"

# A suspicion that another replica had a moment earlier is its own.
SUSPECT = """
INSERT INTO findings (kind, subject, order_id, expected, found, mendable, version, log_end, look_at)
SELECT n.*, now() + $9 * interval '1 second'
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::bool[], $7::bigint[], $8::bigint[]) AS n
ON CONFLICT (kind, subject) WHERE closed_at IS NULL DO NOTHING
"""

LOOK_AGAIN = """
UPDATE findings SET version = $2, log_end = $3, expected = $4, found = $5, mendable = $6,
                    look_at = now() + $7 * interval '1 second'
WHERE finding_id = $1
"""

PUT_OFF = "UPDATE findings SET look_at = now() + $2 * interval '1 second' WHERE finding_id = ANY($1::bigint[])"

CONFIRM = """
UPDATE findings SET confirmed_at = now(), expected = $2, found = $3, mendable = $4,
                    look_at = now() + $5 * interval '1 second'
WHERE finding_id = $1
"""

REPAIRED = """
UPDATE findings SET repaired_at = now(), attempts = attempts + 1, version = $2, log_end = NULL,
                    look_at = now() + $3 * interval '1 second'
WHERE finding_id = ANY($1::bigint[])
"""

FORGET = "DELETE FROM findings WHERE finding_id = ANY($1::bigint[]) AND confirmed_at IS NULL"

CLOSE = """
UPDATE findings SET closed_at = now() WHERE finding_id = ANY($1::bigint[]) AND closed_at IS NULL
RETURNING kind, repaired_at IS NOT NULL AS repaired
"""

CLEAR = "DELETE FROM findings WHERE closed_at < now() - $1 * interval '1 day'"

COUNTS = (
    "SELECT kind, count(*) AS number FROM findings WHERE closed_at IS NULL AND confirmed_at IS NOT NULL GROUP BY kind"
)

LIST = """
SELECT kind, subject, order_id, expected, found, mendable, first_seen, confirmed_at, repaired_at, attempts, closed_at
FROM findings WHERE confirmed_at IS NOT NULL AND ($1 OR closed_at IS NULL) ORDER BY finding_id DESC LIMIT $2
"""


@dataclass(frozen=True)
class Compared:
    """An order at rest, as it is compared; its lines are there where points depend on them."""

    order: Order
    partition: int
    coupon: str | None
    money: Money


async def begin(tx: Tx, walk: str, pause: float) -> Row | None:
    """Position and beginning of a pass; None where another replica walks, or the last pass ended within ``pause``."""
    return await tx.db.fetchrow(BEGIN, walk, pause)


async def go_on(tx: Tx, walk: str, position: str) -> None:
    """The walk has come to ``position``; empty: to its end."""
    await tx.db.execute(GO_ON, walk, position)


async def slice_of(db: Connection, after: UUID, rest: float, limit: int) -> list[Compared]:
    """Orders at rest for ``rest`` seconds that follow on this one."""
    return [_compared(row) for row in await db.fetch(SLICE, rest, after, limit)]


async def some(db: Connection, order_ids: Collection[UUID], rest: float) -> dict[UUID, Compared]:
    """Those of these orders that are at rest."""
    found = [_compared(row) for row in await db.fetch(SOME, rest, list(order_ids))]
    return {one.order.order_id: one for one in found}


def _compared(row: Row) -> Compared:
    lines = row["priced_lines"]
    order = Order(
        row["order_id"], row["channel"], row["currency"], state=row["state"], version=row["version"],
        total=row["total"], settled=row["settled"], points_settled=row["points_settled"], points=row["points"],
        cancelled_lines={int(line): units for line, units in row["cancelled_lines"].items()},
        priced_lines=[PricedLine.model_validate(line) for line in lines] if lines is not None else None,
        parcels=[Parcel(**parcel) for parcel in row["parcels"] or ()],
    )  # fmt: skip
    return Compared(order, row["partition"], row["coupon"], Money(row["kept"], row["booked"]))


@dataclass(frozen=True)
class Suspicion:
    """A difference that was seen for the first time."""

    difference: Difference
    subject: str
    order_id: UUID | None
    version: int | None = None
    log_end: int | None = None


async def suspect(tx: Tx, found: Sequence[Suspicion], rest: float) -> None:
    """Look at these again after ``rest`` seconds."""
    if found:
        rows = [
            (
                one.difference.kind, one.subject, one.order_id, one.difference.expected, one.difference.found,
                one.difference.mendable, one.version, one.log_end,
            )
            for one in found
        ]  # fmt: skip
        await tx.db.execute(SUSPECT, *columns(rows), rest)


async def due(db: Connection, kinds: Sequence[str], limit: int) -> list[Row]:
    """Open findings of these kinds that are to be looked at, those due longest first."""
    return await db.fetch(DUE, list(kinds), limit)


async def open_findings(db: Connection, subjects: Sequence[str]) -> set[tuple[str, str]]:
    """Kind and subject of what is open already."""
    return {(row["kind"], row["subject"]) for row in await db.fetch(OPEN, list(subjects))}


async def look_again(
    tx: Tx, finding: Row, version: int | None, log_end: int | None, now: Difference, rest: float
) -> None:
    """The subject has moved since: what was seen counts as seen for the first time."""
    await tx.db.execute(
        LOOK_AGAIN, finding["finding_id"], version, log_end, now.expected, now.found, now.mendable, rest
    )  # fmt: skip


async def put_off(tx: Tx, findings: Sequence[Row], rest: float) -> None:
    if findings:
        await tx.db.execute(PUT_OFF, _ids(findings), rest)


async def confirm(tx: Tx, finding: Row, now: Difference, rest: float) -> None:
    """It is drift."""
    await tx.db.execute(CONFIRM, finding["finding_id"], now.expected, now.found, now.mendable, rest)


async def repaired(tx: Tx, findings: Sequence[Row], version: int | None, rest: float) -> None:
    """Something was done about these, all of one subject: look at it in ``rest`` seconds."""
    await tx.db.execute(REPAIRED, _ids(findings), version, rest)


async def gone(tx: Tx, findings: Sequence[Row]) -> list[tuple[str, bool]]:
    """There is no difference any more: suspicions are forgotten, drift is closed. Its kinds, and whether repaired."""
    if not findings:
        return []
    await tx.db.execute(FORGET, _ids(findings))
    return [(row["kind"], row["repaired"]) for row in await tx.db.fetch(CLOSE, _ids(findings))]


async def clear(tx: Tx) -> None:
    await tx.db.execute(CLEAR, KEPT_DAYS)


async def counts(db: Connection) -> dict[str, int]:
    """Open drift by kind."""
    return {row["kind"]: row["number"] for row in await db.fetch(COUNTS)}


async def walks(db: Connection) -> list[Row]:
    return await db.fetch(WALKS)


async def findings(db: Connection, *, closed: bool, limit: int) -> list[dict[str, Any]]:
    """Drift, the newest first."""
    return [dict(row) for row in await db.fetch(LIST, closed, limit)]


def _ids(findings: Sequence[Row]) -> list[int]:
    return [row["finding_id"] for row in findings]


def first_id(since: datetime, ago: timedelta) -> UUID:
    """An id before all that were given since then: uuid7 begins with the milliseconds."""
    return UUID(int=int((since - ago).timestamp() * 1000) << 80)
