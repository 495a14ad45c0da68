"""How a customer may be written to, and when they were: consent and address at this moment, and the history."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from services.customer.keyring import Keyring
from services.customer.people import is_email, normal_email
from shared.events.notify import CareEvent, CareFailed, CareSent, CareTriggered
from shared.messages import Batch
from shared.postgres import Row, Tx

# Purposes for which a customer is written to until they withdraw; every other one needs a consent that was given.
UNLESS_WITHDRAWN = frozenset({"order_updates"})

DATA_KEY = "SELECT data_key FROM customers WHERE customer_id = $1 AND data_key IS NOT NULL"

CONSENT = "SELECT granted FROM consents WHERE customer_id = $1 AND purpose = $2 ORDER BY id DESC LIMIT 1"

SEEN_UNDER = """
SELECT kind, hash, value FROM contacts WHERE customer_id = $1 AND kind IN ('name', 'email')
ORDER BY recorded_at DESC, hash
"""

# Whoever came first from triggered to its outcome stays; a late or repeated event changes nothing.
SAVE_HISTORY = """
INSERT INTO contact_history AS h (order_id, trigger, customer_id, state, reason, channel, occurred_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
ON CONFLICT (order_id, trigger) DO UPDATE SET customer_id = coalesce(excluded.customer_id, h.customer_id),
    state = excluded.state, reason = excluded.reason, channel = excluded.channel, occurred_at = excluded.occurred_at
WHERE h.state = 'triggered' AND excluded.state <> 'triggered'
"""

# Also what was said of an id that the customer had before.
HISTORY = """
SELECT id, order_id, trigger, state, reason, channel, occurred_at, recorded_at FROM contact_history
WHERE customer_id IN (SELECT $1::uuid UNION ALL SELECT alias FROM aliases WHERE aliases.customer_id = $1) AND id > $2
ORDER BY id LIMIT $3
"""


async def contact(tx: Tx, keyring: Keyring, customer_id: UUID, purpose: str) -> dict[str, Any] | None:
    """Name and e-mail address last seen, unless writing for ``purpose`` is not allowed; None when unknown or erased."""
    wrapped: bytes | None = await tx.db.fetchval(DATA_KEY, customer_id)
    if wrapped is None:
        return None
    reason = _refusal(purpose, await tx.db.fetchval(CONSENT, customer_id, purpose))
    found: dict[str, str | None] = {"name": None, "email": None}
    if reason is None:
        key = keyring.data_key(customer_id, wrapped)
        for row in await tx.db.fetch(SEEN_UNDER, customer_id):
            kind = row["kind"]
            if found[kind] is None:
                value = key.text("contacts", "value", f"{customer_id}/{kind}/{row['hash'].hex()}", row["value"])
                if kind == "name" or is_email(normal_email(value)):  # people write "n/a", too
                    found[kind] = value
    return {"customer_id": customer_id, **found, "allowed": reason is None, "reason": reason}


def _refusal(purpose: str, granted: bool | None) -> str | None:
    if granted is None:
        return None if purpose in UNLESS_WITHDRAWN else "no_consent"
    return None if granted else "opted_out"


async def note_contacts(tx: Tx, batch: Batch[CareEvent]) -> None:
    """Keep when customers were written to, what about, and why they were not."""
    rows: dict[tuple[UUID, str], tuple[Any, ...]] = {}
    for message in batch:
        event = message.event
        key = (event.order_id, event.trigger)
        match event:
            case CareTriggered():
                row = ("triggered", None, None)
            case CareSent(channel=channel):
                row = ("sent", None, channel)
            case CareFailed(reason=reason):
                row = ("failed", reason, None)
        known = rows.get(key)
        if known is None or (known[3] == "triggered" and row[0] != "triggered"):
            customer = event.customer_id or (known[2] if known else None)
            rows[key] = (*key, customer, *row, event.occurred_at)
    ordered = [rows[key] for key in sorted(rows)]
    await tx.db.execute(SAVE_HISTORY, *(list(column) for column in zip(*ordered, strict=True)))


async def history(tx: Tx, customer_id: UUID, after: int, limit: int) -> list[Row]:
    """The customer's, from the row after ``after``, the oldest first."""
    return await tx.db.fetch(HISTORY, customer_id, after, limit)
