"""What is stored of the ledger: transactions, added and never changed. One function per query."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from services.order.settlement.decisions import Posting
from shared.postgres import Connection, Row, Tx, columns

APPEND = """
INSERT INTO ledger (order_id, cause, currency, kind, accounts, amounts, occurred_at)
SELECT n.order_id, n.cause, n.currency, n.kind, string_to_array(n.accounts, ' '),
       string_to_array(n.amounts, ' ')::numeric[], n.occurred_at
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
     AS n (order_id, cause, currency, kind, accounts, amounts, occurred_at)
"""

TRIAL_BALANCE = """
SELECT currency, account, coalesce(sum(amount) FILTER (WHERE amount > 0), 0) AS debit,
       coalesce(-sum(amount) FILTER (WHERE amount < 0), 0) AS credit
FROM ledger CROSS JOIN LATERAL unnest(accounts, amounts) AS e (account, amount)
WHERE ($1::text IS NULL OR currency = $1) AND ($2::timestamptz IS NULL OR occurred_at >= $2)
  AND ($3::timestamptz IS NULL OR occurred_at < $3)
  AND ($4::text IS NULL OR EXISTS (SELECT FROM orders o WHERE o.order_id = ledger.order_id AND o.channel = $4))
GROUP BY currency, account ORDER BY currency, account
"""

# Ids commit out of order: what an open transaction may yet put before them is left for the next page. Asked before the
# page is read, and of this database alone: a snapshot's own xmin would wait for the oldest transaction of the server.
FENCE = """
SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint - coalesce(max(age(backend_xid)), 0) AS fence
FROM pg_stat_activity WHERE datname = current_database() AND backend_xid IS NOT NULL
"""

JOURNAL = """
SELECT id, order_id, cause, currency, kind, accounts, amounts, occurred_at, recorded_at FROM ledger
WHERE id > $1 AND ($2::uuid IS NULL OR order_id = $2) AND ($3::text IS NULL OR currency = $3)
  AND ($4::text IS NULL OR $4 = ANY (accounts)) AND ($5::timestamptz IS NULL OR occurred_at >= $5)
  AND ($6::timestamptz IS NULL OR occurred_at < $6)
  AND ($2::uuid IS NOT NULL OR written_by::text::bigint < $8)
ORDER BY id LIMIT $7
"""


async def append(tx: Tx, postings: Sequence[tuple[UUID, Posting]]) -> None:
    """Add transactions, each with the event that it books. The database refuses what does not balance."""
    if postings:
        rows = [
            (
                one.order_id, cause, one.currency, one.kind, " ".join(one.amounts),
                " ".join(f"{amount:f}" for amount in one.amounts.values()), one.occurred_at,
            )
            for cause, one in postings
        ]  # fmt: skip
        await tx.db.execute(APPEND, *columns(rows))


async def trial_balance(
    db: Connection, currency: str | None, since: datetime | None, until: datetime | None, channel: str | None
) -> list[Row]:
    """Debits and credits per currency and account, of business times in [since, until), of all channels or one."""
    return await db.fetch(TRIAL_BALANCE, currency, since, until, channel)


async def journal(
    db: Connection, after: int, *, order_id: UUID | None = None, currency: str | None = None,
    account: str | None = None, since: datetime | None = None, until: datetime | None = None, limit: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Transactions in the order in which they were recorded, after the one with this id; none is passed over."""
    fence = await db.fetchval(FENCE)
    rows = await db.fetch(JOURNAL, after, order_id, currency, account, since, until, limit, fence)
    return [dict(row) for row in rows]
