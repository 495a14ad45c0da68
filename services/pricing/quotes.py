"""What is stored of quotes: queries beside ``store``'s."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from pydantic import TypeAdapter

from services.pricing.asks import Ask
from services.pricing.redemption import Quote
from services.pricing.rules import Priced
from shared.postgres import Connection, Database, Row, Tx, columns

FORGET_AT_ONCE = 500

INSERT = """
INSERT INTO quotes (quote_id, asked, priced, valid_until) VALUES ($1, $2, $3, now() + $4 * interval '1 minute')
RETURNING valid_until
"""

GET = "SELECT quote_id, asked, priced, valid_until, state, order_id FROM quotes WHERE quote_id = $1"

# Those that orders name, and those that orders have.
LOCK = """
SELECT quote_id, asked, priced, valid_until, state, order_id FROM quotes
WHERE quote_id = ANY($1::uuid[]) OR order_id = ANY($2::uuid[]) ORDER BY quote_id FOR UPDATE
"""

SAVE = """
UPDATE quotes SET state = n.state, order_id = n.order_id
FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS n (quote_id, state, order_id) WHERE quotes.quote_id = n.quote_id
"""

# A day later, since an order that was recorded in time may still wait to be priced.
FORGET = """
DELETE FROM quotes WHERE quote_id IN (
    SELECT quote_id FROM quotes WHERE state = 'open' AND valid_until < now() - interval '1 day'
    ORDER BY valid_until LIMIT $1 FOR UPDATE SKIP LOCKED
)
"""

_ASK, _PRICED = TypeAdapter(Ask), TypeAdapter(Priced)


async def insert(tx: Tx, quote_id: UUID, ask: Ask, priced: Priced, minutes: int) -> datetime:
    """Keep a quote; returns until when it is valid, by the database's clock."""
    asked, price = _ASK.dump_python(ask, mode="json"), _PRICED.dump_python(priced, mode="json")
    return await tx.db.fetchval(INSERT, quote_id, asked, price, minutes)


async def get(db: Connection, quote_id: UUID) -> Quote | None:
    row = await db.fetchrow(GET, quote_id)
    return _quote(row) if row is not None else None


async def lock(tx: Tx, quote_ids: Collection[UUID], orders: Collection[UUID]) -> dict[UUID, Quote]:
    """These quotes, and those that these orders have, locked in the order of their ids."""
    if not quote_ids and not orders:
        return {}
    return {row["quote_id"]: _quote(row) for row in await tx.db.fetch(LOCK, sorted(quote_ids), sorted(orders))}


def _quote(row: Row) -> Quote:
    return Quote(
        row["quote_id"], _ASK.validate_python(row["asked"]), _PRICED.validate_python(row["priced"]), row["valid_until"],
        row["state"], row["order_id"],
    )  # fmt: skip


async def save(tx: Tx, changed: Collection[Quote]) -> None:
    if changed:
        rows = [(quote.quote_id, quote.state, quote.order_id) for quote in changed]
        await tx.db.execute(SAVE, *columns(rows))


async def forget(database: Database) -> bool:
    """Delete some of the quotes that nobody used and nobody can use any more; True if there may be others."""
    async with database.transaction() as tx:
        done = await tx.db.execute(FORGET, FORGET_AT_ONCE)
    return done == f"DELETE {FORGET_AT_ONCE}"
