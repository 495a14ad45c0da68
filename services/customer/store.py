"""What is stored: customers, identities, and what became of orders. Each batch needs a fixed number of queries.

Locks are taken in this order, sorted within each: orders, identities, customers, at last the business clock; so two
batches cannot deadlock.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from services.customer import ledger
from services.customer.keyring import DataKey, Keyring
from services.customer.people import Contact, Trait, name_words
from services.customer.registry import Customer, Identification, Identity, Registry
from shared.events.customer import BuyerIdentified
from shared.postgres import Row, Tx, columns
from shared.sealing import SealedBuyer

OPEN_ORDERS = """
INSERT INTO identifications (order_id, channel, occurred_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) ON CONFLICT DO NOTHING
"""

LOCK_ORDERS = """
SELECT order_id, state, version, customer_id, points_held FROM identifications
WHERE order_id = ANY($1::uuid[]) ORDER BY order_id FOR UPDATE
"""

SAVE_ORDERS = """
UPDATE identifications
SET state = n.state, version = n.version, customer_id = n.customer_id, points_held = n.points_held
FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::uuid[], $5::bigint[])
     AS n (order_id, state, version, customer_id, points_held)
WHERE identifications.order_id = n.order_id
"""

RESERVE_IDENTITIES = """
INSERT INTO identities (hash, kind) SELECT * FROM unnest($1::bytea[], $2::text[]) ON CONFLICT DO NOTHING
RETURNING hash
"""

IDENTITIES = """
SELECT i.hash, i.collision, i.customer_id, i.value, c.data_key
FROM identities i JOIN customers c USING (customer_id) WHERE i.hash = ANY($1::bytea[]) ORDER BY i.hash, i.collision
"""

LINK_IDENTITIES = """
INSERT INTO identities (hash, collision, kind, customer_id, value)
SELECT * FROM unnest($1::bytea[], $2::int[], $3::text[], $4::uuid[], $5::bytea[])
ON CONFLICT (hash, collision) DO UPDATE SET customer_id = excluded.customer_id, value = excluded.value
WHERE identities.customer_id IS NULL
"""

UNRESERVE_IDENTITIES = "DELETE FROM identities WHERE hash = ANY($1::bytea[]) AND customer_id IS NULL"

ALIASES = "SELECT alias, customer_id FROM aliases WHERE alias = ANY($1::uuid[])"

LOCK_CUSTOMERS = """
SELECT customer_id, version, channel, tier, guest, points_balance, points_held, data_key, registered_at, tier_pinned,
       tier_review_at
FROM customers WHERE customer_id = ANY($1::uuid[]) AND data_key IS NOT NULL ORDER BY customer_id FOR NO KEY UPDATE
"""

NEW_CUSTOMERS = """
INSERT INTO customers (customer_id, version, channel, tier, guest, points_balance, points_held, tier_review_at,
                       data_key, registered_at)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::bool[], $6::bigint[], $7::bigint[],
                     $8::timestamptz[], $9::bytea[], $10::timestamptz[])
"""

SAVE_CUSTOMERS = """
UPDATE customers SET version = n.version, tier = n.tier, points_balance = n.balance, points_held = n.held,
                     tier_pinned = n.pinned, tier_review_at = n.review_at
FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bool[], $7::timestamptz[])
     AS n (customer_id, version, tier, balance, held, pinned, review_at)
WHERE customers.customer_id = n.customer_id
"""

SAVE_CONTACTS = """
INSERT INTO contacts (customer_id, kind, hash, value)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::bytea[]) ON CONFLICT DO NOTHING
"""

SAVE_NAME_WORDS = """
INSERT INTO name_words (hash, customer_id) SELECT * FROM unnest($1::bytea[], $2::uuid[]) ON CONFLICT DO NOTHING
"""

SAVE_RECIPIENTS = """
INSERT INTO recipients (recipient_id, order_id, customer_id, content, note, buyer_name, buyer_email)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[])
"""


@dataclass
class Vault:
    """What a transaction has locked: the registry, and what it takes to read and write the people in it."""

    keyring: Keyring
    registry: Registry = field(default_factory=Registry)
    identities: dict[Trait, Identity] = field(default_factory=dict[Trait, Identity])
    reserved: set[bytes] = field(default_factory=set[bytes])
    data_keys: dict[UUID, DataKey] = field(default_factory=dict[UUID, DataKey])
    wrapped: dict[UUID, bytes] = field(default_factory=dict[UUID, bytes])
    notes: dict[UUID, tuple[bytes, str]] = field(default_factory=dict[UUID, tuple[bytes, str]])  # of entries: `ledger`

    def identify(self, traits: Iterable[Trait]) -> tuple[Identity, ...]:
        return tuple(self.identities[trait] for trait in traits)

    def data_key(self, customer_id: UUID) -> DataKey:
        """The customer's key; a new one for a new customer."""
        if customer_id not in self.data_keys:
            if customer_id in self.wrapped:
                self.data_keys[customer_id] = self.keyring.data_key(customer_id, self.wrapped[customer_id])
            else:
                self.data_keys[customer_id], self.wrapped[customer_id] = self.keyring.new_data_key(customer_id)
        return self.data_keys[customer_id]


async def lock_orders(
    tx: Tx, orders: Mapping[UUID, tuple[str | None, datetime]], known: Iterable[UUID]
) -> dict[UUID, Identification]:
    """What became of these orders, locked. ``orders`` have a row from now on, with channel and business time;
    of the ``known`` ones those that have a row already are locked, too."""
    ids = sorted(orders)
    if ids:
        await tx.db.execute(OPEN_ORDERS, ids, [orders[id_][0] for id_ in ids], [orders[id_][1] for id_ in ids])
    wanted = sorted({*ids, *known})
    rows = await tx.db.fetch(LOCK_ORDERS, wanted) if wanted else []
    return {
        row["order_id"]: Identification(row["state"], row["version"], row["customer_id"], row["points_held"])
        for row in rows
        if row["state"] != "seen"
    }


async def lock_identities(tx: Tx, vault: Vault, traits: Iterable[Trait]) -> None:
    """Who is recognised by these traits; unknown ones are reserved, so that one of two batches waits for the other."""
    hashes = {trait: identity_hash(vault.keyring, trait) for trait in set(traits)}
    if not hashes:
        return
    wanted = sorted((hash_, trait.kind) for trait, hash_ in hashes.items())
    reserved = await tx.db.fetch(RESERVE_IDENTITIES, [hash_ for hash_, _ in wanted], [kind for _, kind in wanted])
    vault.reserved = {row["hash"] for row in reserved}
    # after the reservation: a statement of its own sees what the reservation waited for
    by_text = {trait.text: trait for trait in hashes}
    known: dict[bytes, dict[int, str | None]] = {}
    for row in await tx.db.fetch(IDENTITIES, [hash_ for hash_, _ in wanted]):
        known.setdefault(row["hash"], {})[row["collision"]] = text = _identity_text(vault, row)
        trait = by_text.get(text or "")  # by the value: the hash alone proves nothing
        if trait is not None:
            vault.identities[trait] = Identity(trait.kind, row["hash"], row["collision"])
            vault.registry.owners[vault.identities[trait]] = row["customer_id"]
    for trait, hash_ in sorted(hashes.items(), key=lambda one: one[0].text):
        if trait not in vault.identities:
            taken = known.setdefault(hash_, {})
            collision = next(number for number in itertools.count() if number not in taken)
            taken[collision] = trait.text
            vault.identities[trait] = Identity(trait.kind, hash_, collision)


def _identity_text(vault: Vault, row: Row) -> str | None:
    if row["data_key"] is None:
        return None
    vault.wrapped[row["customer_id"]] = row["data_key"]
    place = f"{row['hash'].hex()}/{row['collision']}"
    return vault.data_key(row["customer_id"]).text("identities", "value", place, row["value"])


async def lock_customers(tx: Tx, vault: Vault, customers: Iterable[UUID]) -> None:
    """The customers of these ids or aliases, locked; unknown and erased ones are absent."""
    wanted = set(customers)
    if not wanted:
        return
    aliases = {row["alias"]: row["customer_id"] for row in await tx.db.fetch(ALIASES, sorted(wanted))}
    vault.registry.aliases.update(aliases)
    for row in await tx.db.fetch(LOCK_CUSTOMERS, sorted({aliases.get(one, one) for one in wanted})):
        vault.registry.customers[row["customer_id"]] = Customer(
            row["customer_id"], row["version"], row["channel"], row["tier"], row["guest"], row["points_balance"],
            row["points_held"], row["registered_at"], row["tier_pinned"], row["tier_review_at"],
        )  # fmt: skip
        vault.wrapped[row["customer_id"]] = row["data_key"]


async def save(tx: Tx, vault: Vault) -> None:
    """Write back what was locked and decisions changed."""
    registry = vault.registry
    new = [registry.customers[one] for one in sorted(registry.registered)]
    if new:
        for customer in new:
            vault.data_key(customer.customer_id)
        await tx.db.execute(
            NEW_CUSTOMERS, [one.customer_id for one in new], [one.version for one in new],
            [one.channel for one in new], [one.tier for one in new], [one.guest for one in new],
            [one.balance for one in new], [one.held for one in new], [one.review_at for one in new],
            [vault.wrapped[one.customer_id] for one in new], [one.registered_at for one in new],
        )  # fmt: skip
    changed = [registry.customers[one] for one in sorted(registry.touched_customers - registry.registered)]
    if changed:
        await tx.db.execute(
            SAVE_CUSTOMERS, [one.customer_id for one in changed], [one.version for one in changed],
            [one.tier for one in changed], [one.balance for one in changed], [one.held for one in changed],
            [one.pinned for one in changed], [one.review_at for one in changed],
        )  # fmt: skip
    await _save_identities(tx, vault)
    orders = [(order, registry.orders[order]) for order in sorted(registry.touched_orders)]
    if orders:
        await tx.db.execute(
            SAVE_ORDERS, [order for order, _ in orders], [one.state for _, one in orders],
            [one.version for _, one in orders], [one.customer_id for _, one in orders],
            [one.points_held for _, one in orders],
        )  # fmt: skip
    await ledger.save(tx, registry, vault.notes)


async def _save_identities(tx: Tx, vault: Vault) -> None:
    linked = vault.registry.linked
    rows: list[Sequence[Any]] = []
    for trait, identity in vault.identities.items():
        if identity in linked:
            owner, place = vault.registry.owners[identity], f"{identity.hash.hex()}/{identity.collision}"
            value = vault.data_key(owner).encrypt("identities", "value", place, trait.text)
            rows.append((identity.hash, identity.collision, identity.kind, owner, value))
    if rows:
        await tx.db.execute(LINK_IDENTITIES, *columns(rows))
    unused = vault.reserved - {identity.hash for identity in linked if identity.collision == 0}
    if unused:
        await tx.db.execute(UNRESERVE_IDENTITIES, sorted(unused))


async def save_contacts(tx: Tx, vault: Vault, contacts: Iterable[tuple[UUID, Contact]]) -> None:
    """Keep under what customers were seen, encrypted; what is known already stays as it is."""
    rows: dict[tuple[UUID, str, bytes], Sequence[Any]] = {}
    words: set[tuple[bytes, UUID]] = set()
    for customer_id, contact in contacts:
        hash_ = contact_hash(vault.keyring, contact)
        place = f"{customer_id}/{contact.kind}/{hash_.hex()}"
        value = vault.data_key(customer_id).encrypt("contacts", "value", place, contact.value)
        rows.setdefault((customer_id, contact.kind, hash_), (customer_id, contact.kind, hash_, value))
        if contact.kind == "name":
            words |= {(vault.keyring.blind("word", word), customer_id) for word in name_words(contact.value)}
    if rows:
        await tx.db.execute(SAVE_CONTACTS, *columns(rows.values()))
    if words:
        await tx.db.execute(SAVE_NAME_WORDS, *columns(sorted(words)))


def identity_hash(keyring: Keyring, trait: Trait) -> bytes:
    return keyring.blind("identity", trait.kind, trait.scope, trait.value)


def contact_hash(keyring: Keyring, contact: Contact) -> bytes:
    return keyring.blind("contact", contact.kind, contact.normal)


async def save_recipients(tx: Tx, vault: Vault, accepted: Sequence[tuple[BuyerIdentified, SealedBuyer]]) -> None:
    """Keep where each order goes, and under what it was placed, encrypted and for good."""
    rows: list[Sequence[Any]] = []
    for event, box in accepted:
        key, recipient = vault.data_key(event.customer_id), event.recipient_id
        written = {
            "content": box.recipient.model_dump_json(exclude_none=True), "note": box.note,
            "buyer_name": box.buyer.name, "buyer_email": box.buyer.email,
        }  # fmt: skip
        sealed = (key.encrypt("recipients", name, recipient, text) if text else None for name, text in written.items())
        rows.append((recipient, event.order_id, event.customer_id, *sealed))
    if rows:
        await tx.db.execute(SAVE_RECIPIENTS, *columns(rows))
