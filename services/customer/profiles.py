"""What is read over HTTP: people, their orders, points and consents; and the note of who read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from services.customer.keyring import DataKey, Keyring
from services.customer.people import Contact, contacts, name_words
from services.customer.store import contact_hash
from shared.postgres import Connection, Row, Tx
from shared.sealing import Recipient

CUSTOMERS = """
SELECT customer_id, channel, tier, tier_pinned, tier_review_at, guest, points_balance, points_held, registered_at,
       data_key FROM customers
WHERE customer_id = ANY($1::uuid[]) AND data_key IS NOT NULL ORDER BY customer_id
"""

RESOLVE = "SELECT coalesce((SELECT customer_id FROM aliases WHERE alias = $1), $1)"

CONTACTS = """
SELECT customer_id, kind, hash, value FROM contacts WHERE customer_id = ANY($1::uuid[]) ORDER BY recorded_at, hash
"""

ALIASES = "SELECT alias, customer_id FROM aliases WHERE customer_id = ANY($1::uuid[]) ORDER BY alias"

CONSENTS = """
SELECT DISTINCT ON (customer_id, purpose) customer_id, purpose, granted FROM consents
WHERE customer_id = ANY($1::uuid[]) ORDER BY customer_id, purpose, id DESC
"""

BY_CONTACT = """
SELECT customer_id FROM contacts WHERE kind = $1 AND hash = $2 AND customer_id > $3 ORDER BY customer_id LIMIT $4
"""

BY_NAME = """
SELECT customer_id FROM name_words WHERE hash = ANY($1::bytea[]) AND customer_id > $2
GROUP BY customer_id HAVING count(*) = cardinality($1::bytea[]) ORDER BY customer_id LIMIT $3
"""

ORDERS = """
SELECT order_id, channel, state, points_held, occurred_at, recorded_at FROM identifications
WHERE customer_id = $1 AND (recorded_at, order_id) > ($2, $3) ORDER BY recorded_at, order_id LIMIT $4
"""

CONSENT_HISTORY = """
SELECT id, purpose, granted, source, actor, occurred_at, recorded_at FROM consents
WHERE customer_id = $1 AND id > $2 ORDER BY id LIMIT $3
"""

POINTS_ENTRIES = """
SELECT * FROM (
    SELECT number, entry_id, points, (sum(points) OVER (ORDER BY number))::bigint AS balance, kind, order_id, reason,
           actor, occurred_at, recorded_at FROM points_entries WHERE customer_id = $1) AS entries
WHERE number > $2 ORDER BY number LIMIT $3
"""

RECIPIENT = """
SELECT r.recipient_id, r.order_id, r.customer_id, r.content, r.note, r.recorded_at, c.data_key
FROM recipients r JOIN customers c USING (customer_id) WHERE r.recipient_id = $1 AND c.data_key IS NOT NULL
"""

NOTE_ACCESS = """
INSERT INTO accesses (actor, action, customer_id, recipient_id)
SELECT $1, n.action, n.customer_id, $4 FROM unnest($2::text[], $3::uuid[]) AS n (action, customer_id)
"""


async def read(tx: Tx, keyring: Keyring, customers: Iterable[UUID]) -> list[dict[str, Any]]:
    """The profiles of these customers, in the order of their ids, decrypted; unknown and erased ones are absent."""
    wanted = sorted(set(customers))
    rows = await tx.db.fetch(CUSTOMERS, wanted) if wanted else []
    profiles = {row["customer_id"]: _profile(row) for row in rows}
    keys = {row["customer_id"]: keyring.data_key(row["customer_id"], row["data_key"]) for row in rows}
    if profiles:
        for row in await tx.db.fetch(CONTACTS, list(profiles)):
            profiles[row["customer_id"]][f"{row['kind']}s"].append(_contact(keys[row["customer_id"]], row))
        for row in await tx.db.fetch(ALIASES, list(profiles)):
            profiles[row["customer_id"]]["aliases"].append(row["alias"])
        for row in await tx.db.fetch(CONSENTS, list(profiles)):
            profiles[row["customer_id"]]["consents"][row["purpose"]] = row["granted"]
    return list(profiles.values())


def _profile(row: Row) -> dict[str, Any]:
    points = {"balance": row["points_balance"], "held": row["points_held"]}
    lists: dict[str, Any] = {name: [] for name in ("names", "emails", "phones", "aliases")}
    plain = {name: row[name] for name in ("customer_id", "channel", "tier", "guest", "registered_at")}
    return {**plain, **lists, "consents": {}, "points": points}


def _contact(key: DataKey, row: Row) -> str:
    place = f"{row['customer_id']}/{row['kind']}/{row['hash'].hex()}"
    return key.text("contacts", "value", place, row["value"])


async def resolve(tx: Tx, customer_id: UUID) -> UUID:
    """The id of a customer, given it or an alias."""
    return await tx.db.fetchval(RESOLVE, customer_id)


async def search(tx: Tx, keyring: Keyring, wanted: Contact, after: UUID, limit: int) -> list[UUID]:
    """Ids, at most ``limit``, of customers seen under this e-mail or phone, or under a name with all these words."""
    if wanted.kind == "name":
        words = sorted({keyring.blind("word", word) for word in name_words(wanted.value)})
        rows = await tx.db.fetch(BY_NAME, words, after, limit)
    else:
        rows = await tx.db.fetch(BY_CONTACT, wanted.kind, contact_hash(keyring, wanted), after, limit)
    return [row["customer_id"] for row in rows]


def shows(profile: dict[str, Any], wanted: Contact) -> bool:
    """Whether a profile found by hash holds the value itself."""
    if wanted.kind == "name":
        return set(name_words(wanted.value)) <= {word for name in profile["names"] for word in name_words(name)}
    seen: list[str] = profile[f"{wanted.kind}s"]
    return any(one.normal == wanted.normal for value in seen for one in contacts(**_only(wanted.kind, value)))


def _only(kind: str, value: str) -> dict[str, str | None]:
    return {"name": None, "email": None, "phone": None, kind: value}


async def orders(tx: Tx, customer_id: UUID, after: tuple[datetime, UUID], limit: int) -> list[Row]:
    return await tx.db.fetch(ORDERS, customer_id, *after, limit)


async def consent_history(tx: Tx, customer_id: UUID, after: int, limit: int) -> list[Row]:
    return await tx.db.fetch(CONSENT_HISTORY, customer_id, after, limit)


async def points_entries(tx: Tx, keyring: Keyring, customer_id: UUID, after: int, limit: int) -> list[dict[str, Any]]:
    """Entries in the order in which the balance changed, each with the ``balance`` that it left."""
    (row,) = await tx.db.fetch(CUSTOMERS, [customer_id])
    key = keyring.data_key(customer_id, row["data_key"])
    rows = await tx.db.fetch(POINTS_ENTRIES, customer_id, after, limit)
    return [{**row, "reason": _reason(key, row)} for row in rows]


def _reason(key: DataKey, row: Row) -> str | None:
    return key.text("points_entries", "reason", row["entry_id"], row["reason"]) if row["reason"] else None


async def recipient(tx: Tx, keyring: Keyring, recipient_id: UUID) -> dict[str, Any] | None:
    """Where an order goes, decrypted; None when unknown or erased."""
    row = await tx.db.fetchrow(RECIPIENT, recipient_id)
    if row is None:
        return None
    key = keyring.data_key(row["customer_id"], row["data_key"])
    content = Recipient.model_validate_json(key.decrypt("recipients", "content", recipient_id, row["content"]))
    note = key.text("recipients", "note", recipient_id, row["note"]) if row["note"] else None
    ids = {name: row[name] for name in ("recipient_id", "order_id", "customer_id")}
    return {**ids, "note": note, **content.model_dump()}


async def note_access(
    tx: Tx, actor: str, action: str, customers: Sequence[UUID | None], recipient_id: UUID | None = None
) -> None:
    """Who reads what of whom; when is the database's business."""
    await note_accesses(tx, actor, [(action, customer) for customer in customers], recipient_id)


async def note_accesses(
    tx: Tx, actor: str, accesses: Sequence[tuple[str, UUID | None]], recipient_id: UUID | None = None
) -> None:
    """As ``note_access``, of several things read at once: each what and of whom."""
    actions, customers = [action for action, _ in accesses], [customer for _, customer in accesses]
    await tx.db.execute(NOTE_ACCESS, actor, actions, customers, recipient_id)


async def known(db: Connection, customer_id: UUID) -> bool:
    return bool(await db.fetch(CUSTOMERS, [customer_id]))


async def tier(tx: Tx, customer_id: UUID) -> dict[str, Any]:
    """The tier of a customer that exists."""
    (row,) = await tx.db.fetch(CUSTOMERS, [customer_id])
    return {"tier": row["tier"], "pinned": row["tier_pinned"], "falls_at": row["tier_review_at"]}
