"""How a customer may be written to about an order, and when they were: consent and address, and the history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.customer.keyring import DataKey, Keyring
from services.customer.people import Trait, is_email, normal_email
from services.customer.store import identity_hash
from shared.events.notify import CareEvent, CareFailed, CareSent, CareTriggered
from shared.messages import Batch
from shared.postgres import Row, Tx

# Purposes for which a customer is written to until they withdraw; every other one needs a consent that was given.
UNLESS_WITHDRAWN = frozenset({"order_updates"})

DATA_KEY = "SELECT data_key FROM customers WHERE customer_id = $1 AND data_key IS NOT NULL"

CONSENT = "SELECT granted FROM consents WHERE customer_id = $1 AND purpose = $2 ORDER BY id DESC LIMIT 1"

# An order of somebody else is none.
OF_ORDER = """
SELECT r.recipient_id, r.buyer_name, r.buyer_email, i.channel FROM recipients r JOIN identifications i USING (order_id)
WHERE r.order_id = $1 AND r.customer_id = $2
"""

OWN_ADDRESSES = """
SELECT hash, collision, value FROM identities WHERE customer_id = $1 AND kind = 'email' ORDER BY recorded_at DESC, hash
"""

# Who opted out, of those who own an address by one of these hashes.
OPTED_OUT_OWNERS = """
SELECT i.hash, i.collision, i.value, i.customer_id, c.data_key FROM identities i JOIN customers c USING (customer_id)
WHERE i.hash = ANY($1::bytea[]) AND i.customer_id <> $2 AND c.data_key IS NOT NULL
AND (SELECT granted FROM consents WHERE customer_id = i.customer_id AND purpose = $3 ORDER BY id DESC LIMIT 1) IS FALSE
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


@dataclass(frozen=True)
class Placed:
    """Under what an order was placed, as it was written."""

    channel: str | None = None
    name: str | None = None
    email: str | None = None


async def contact(
    tx: Tx, keyring: Keyring, customer_id: UUID, purpose: str, order_id: UUID | None
) -> dict[str, Any] | None:
    """Name and e-mail address to write to about this order, unless that is not allowed; None when unknown or erased.

    Of ``order_updates`` one writes to the address that the order was placed with. For every other purpose, and where
    the order has none, it is one that the customer is recognised by: never one that an account merely typed. The name
    is that of the order, if the order does not say that it is the name of another address. Consent is the customer's;
    but who owns the address and opted out is not written to either.
    """
    wrapped: bytes | None = await tx.db.fetchval(DATA_KEY, customer_id)
    if wrapped is None:
        return None
    reason = _refusal(purpose, await tx.db.fetchval(CONSENT, customer_id, purpose))
    found: dict[str, str | None] = {"name": None, "email": None}
    if reason is None:
        key = keyring.data_key(customer_id, wrapped)
        placed = await _placed(tx, key, customer_id, order_id) if order_id else Placed()
        email = placed.email if purpose in UNLESS_WITHDRAWN else None
        email = email or await _own_address(tx, key, customer_id, placed.channel)
        if email and await _owner_opted_out(tx, keyring, customer_id, purpose, email, placed.channel):
            reason = "opted_out"
        else:
            named = placed.email is None or normal_email(placed.email) == normal_email(email or "")
            found = {"name": placed.name if named else None, "email": email}
    return {"customer_id": customer_id, **found, "allowed": reason is None, "reason": reason}


async def _placed(tx: Tx, key: DataKey, customer_id: UUID, order_id: UUID) -> Placed:
    row = await tx.db.fetchrow(OF_ORDER, order_id, customer_id)
    if row is None:  # not identified yet, or refused
        return Placed()

    def text(column: str) -> str | None:
        return key.text("recipients", column, row["recipient_id"], row[column]) if row[column] else None

    email = text("buyer_email")
    usable = email is not None and is_email(normal_email(email))  # people write "n/a", too
    return Placed(row["channel"], text("buyer_name"), email if usable else None)


async def _own_address(tx: Tx, key: DataKey, customer_id: UUID, channel: str | None) -> str | None:
    """The latest that the customer is recognised by; one that a marketplace made up is of its channel only."""
    for row in await tx.db.fetch(OWN_ADDRESSES, customer_id):
        trait = _trait(key, row)
        if trait.scope in ("", channel):
            return trait.value
    return None


async def _owner_opted_out(
    tx: Tx, keyring: Keyring, customer_id: UUID, purpose: str, email: str, channel: str | None
) -> bool:
    """Whether the address is another customer's who does not want to be written to."""
    traits = {Trait("email", scope, normal_email(email)) for scope in ("", channel or "")}
    hashes = [identity_hash(keyring, trait) for trait in traits]
    rows = await tx.db.fetch(OPTED_OUT_OWNERS, hashes, customer_id, purpose)
    return any(_trait(keyring.data_key(row["customer_id"], row["data_key"]), row) in traits for row in rows)


def _trait(key: DataKey, row: Row) -> Trait:
    return Trait.read(key.text("identities", "value", f"{row['hash'].hex()}/{row['collision']}", row["value"]))


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
