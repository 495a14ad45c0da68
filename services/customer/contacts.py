"""How a customer may be written to about an order, and when they were: consent and address, and the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.customer.keyring import DataKey, Keyring
from services.customer.people import Trait, is_email, normal_email
from services.customer.store import identity_hash
from shared.events.notify import CareEvent, CareFailed, CareSent, CareTriggered
from shared.messages import Batch
from shared.postgres import Row, Tx, columns

# Purposes for which a customer is written to until they withdraw; every other one needs a consent that was given.
UNLESS_WITHDRAWN = frozenset({"order_updates"})

# By id or alias, with what the order was placed under; an order of somebody else is none.
ASKED = """
SELECT n.place, c.customer_id, c.data_key, r.recipient_id, r.buyer_name, r.buyer_email, i.channel,
    (SELECT granted FROM consents s WHERE s.customer_id = c.customer_id AND s.purpose = n.purpose
     ORDER BY s.id DESC LIMIT 1) AS granted
FROM unnest($1::uuid[], $2::text[], $3::uuid[]) WITH ORDINALITY AS n (customer_id, purpose, order_id, place)
LEFT JOIN aliases a ON a.alias = n.customer_id
JOIN customers c ON c.customer_id = coalesce(a.customer_id, n.customer_id) AND c.data_key IS NOT NULL
LEFT JOIN recipients r ON r.order_id = n.order_id AND r.customer_id = c.customer_id
LEFT JOIN identifications i ON i.order_id = r.order_id
"""

OWN_ADDRESSES = """
SELECT customer_id, hash, collision, value FROM identities WHERE customer_id = ANY($1::uuid[]) AND kind = 'email'
ORDER BY customer_id, recorded_at DESC, hash
"""

# Who opted out of a purpose, of those who own an address by one of these hashes.
OPTED_OUT_OWNERS = """
SELECT i.hash, i.collision, i.value, i.customer_id, c.data_key, n.purpose
FROM unnest($1::bytea[], $2::text[]) AS n (hash, purpose)
JOIN identities i ON i.hash = n.hash JOIN customers c ON c.customer_id = i.customer_id AND c.data_key IS NOT NULL
WHERE (SELECT granted FROM consents s WHERE s.customer_id = i.customer_id AND s.purpose = n.purpose
       ORDER BY s.id DESC LIMIT 1) IS FALSE
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
class Question:
    """Where to write to a customer (by id or alias) for this purpose, about this order."""

    customer_id: UUID
    purpose: str
    order_id: UUID | None = None


@dataclass(frozen=True)
class Placed:
    """Under what an order was placed, as it was written."""

    channel: str | None = None
    name: str | None = None
    email: str | None = None


@dataclass
class Allowed:
    """A customer whose own consent allows a question, and the address found so far."""

    customer_id: UUID
    purpose: str
    key: DataKey
    placed: Placed
    email: str | None

    @property
    def traits(self) -> set[Trait]:
        """By which another would be recognised as the owner of the address."""
        return {Trait("email", scope, normal_email(self.email or "")) for scope in ("", self.placed.channel or "")}

    @property
    def name(self) -> str | None:
        """That of the order, if the order does not say that it is the name of another address."""
        email = self.placed.email
        return self.placed.name if email is None or normal_email(email) == normal_email(self.email or "") else None


async def contacts(tx: Tx, keyring: Keyring, questions: Sequence[Question]) -> list[dict[str, Any] | None]:
    """Name and e-mail address to write to, for each question in turn, unless that is not allowed; None when unknown
    or erased. Four statements at most, however many are asked.

    Of ``order_updates`` one writes to the address that the order was placed with. For every other purpose, and where
    the order has none, it is one that the customer is recognised by: never one that an account merely typed. The name
    is that of the order, if the order does not say that it is the name of another address. Consent is the customer's;
    but who owns the address and opted out is not written to either.
    """
    columns = ([getattr(one, name) for one in questions] for name in ("customer_id", "purpose", "order_id"))
    rows: dict[int, Row] = {row["place"] - 1: row for row in await tx.db.fetch(ASKED, *columns)}
    refused = {place: _refusal(questions[place].purpose, row["granted"]) for place, row in rows.items()}
    allowed = {
        place: _allowed(keyring, questions[place].purpose, row) for place, row in rows.items() if not refused[place]
    }
    await _add_own_addresses(tx, [one for one in allowed.values() if one.email is None])
    owned = await _owned_by_who_opted_out(tx, keyring, {place: one for place, one in allowed.items() if one.email})
    refused |= dict.fromkeys(owned, "opted_out")

    def answer(place: int) -> dict[str, Any] | None:
        if place not in rows:
            return None
        reason, one = refused[place], allowed.get(place)
        found = {"name": one.name, "email": one.email} if one and reason is None else {"name": None, "email": None}
        return {"customer_id": rows[place]["customer_id"], **found, "allowed": reason is None, "reason": reason}

    return [answer(place) for place in range(len(questions))]


def _allowed(keyring: Keyring, purpose: str, row: Row) -> Allowed:
    key = keyring.data_key(row["customer_id"], row["data_key"])
    placed = _placed(key, row)
    email = placed.email if purpose in UNLESS_WITHDRAWN else None
    return Allowed(row["customer_id"], purpose, key, placed, email)


def _placed(key: DataKey, row: Row) -> Placed:
    if row["recipient_id"] is None:  # not identified yet, or refused
        return Placed()

    def text(column: str) -> str | None:
        return key.text("recipients", column, row["recipient_id"], row[column]) if row[column] else None

    email = text("buyer_email")
    usable = email is not None and is_email(normal_email(email))  # people write "n/a", too
    return Placed(row["channel"], text("buyer_name"), email if usable else None)


async def _add_own_addresses(tx: Tx, wanted: Sequence[Allowed]) -> None:
    """The latest that each is recognised by; one that a marketplace made up is of its channel only."""
    known: dict[UUID, list[Row]] = {one.customer_id: [] for one in wanted}
    for row in await tx.db.fetch(OWN_ADDRESSES, list(known)) if known else ():
        known[row["customer_id"]].append(row)
    for one in wanted:
        traits = (_trait(one.key, row) for row in known[one.customer_id])
        one.email = next((trait.value for trait in traits if trait.scope in ("", one.placed.channel)), None)


async def _owned_by_who_opted_out(tx: Tx, keyring: Keyring, asked: Mapping[int, Allowed]) -> list[int]:
    """Those whose address is another customer's who does not want to be written to."""
    hashes = {place: {identity_hash(keyring, trait) for trait in one.traits} for place, one in asked.items()}
    pairs = sorted({(hash_, one.purpose) for place, one in asked.items() for hash_ in hashes[place]})
    columns = ([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    rows = await tx.db.fetch(OPTED_OUT_OWNERS, *columns) if pairs else []

    def concerns(place: int, row: Row) -> bool:
        one = asked[place]
        if row["hash"] not in hashes[place] or row["purpose"] != one.purpose or row["customer_id"] == one.customer_id:
            return False
        return _trait(keyring.data_key(row["customer_id"], row["data_key"]), row) in one.traits

    return [place for place in asked if any(concerns(place, row) for row in rows)]


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
    await tx.db.execute(SAVE_HISTORY, *columns(ordered))


async def history(tx: Tx, customer_id: UUID, after: int, limit: int) -> list[Row]:
    """The customer's, from the row after ``after``, the oldest first."""
    return await tx.db.fetch(HISTORY, customer_id, after, limit)
