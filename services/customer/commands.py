"""What is commanded over HTTP: customers registered, tiers, consents and points changed; each returns what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid5

from services.customer import decisions, store
from services.customer.decisions import Customer
from services.customer.handlers import publish
from services.customer.keyring import Keyring
from services.customer.people import Contact, Trait
from services.customer.store import Vault
from shared.events.customer import ConsentChanged, TierChanged
from shared.messages import Cause
from shared.postgres import Tx
from shared.problems import Problem

CONSENT = """
SELECT granted FROM consents WHERE customer_id = $1 AND purpose = $2 ORDER BY id DESC LIMIT 1
"""

SAVE_CONSENT = """
INSERT INTO consents (customer_id, purpose, granted, source, actor, occurred_at) VALUES ($1, $2, $3, $4, $5, $6)
"""

SAVE_POINTS = """
INSERT INTO points_entries (entry_id, customer_id, points, kind, reason, actor, occurred_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Who commands it, why, and in what business time."""

    actor: str
    at: datetime
    cause: Cause


async def register(
    tx: Tx, keyring: Keyring, channel: str, traits: Sequence[Trait], contacts: Sequence[Contact], command: Command
) -> tuple[UUID, bool]:
    """A customer of these traits, and whether it is new: who is known already keeps the id, and is known better now."""
    vault = Vault(keyring)
    await store.lock_identities(tx, vault, traits)
    await store.lock_customers(tx, vault, vault.registry.owners.values())
    identities = vault.identify(traits)
    outcomes = decisions.register(
        vault.registry, identities, customer_id=uuid5(command.cause.id, "customer"), channel=channel,
        occurred_at=command.at,
    )  # fmt: skip
    for outcome in outcomes:
        publish(tx, vault.registry, outcome, cause=command.cause)
    customer = vault.registry.owner(identities)
    assert customer is not None
    await store.save(tx, vault)
    await store.save_contacts(tx, vault, [(customer.customer_id, contact) for contact in contacts])
    return customer.customer_id, bool(outcomes)


async def change_tier(tx: Tx, keyring: Keyring, customer_id: UUID, tier: str, command: Command) -> Customer:
    vault, customer = await _lock(tx, keyring, customer_id)
    if customer.tier != tier:
        event = TierChanged(occurred_at=command.at, customer_id=customer.customer_id, tier=tier)
        publish(tx, vault.registry, event, cause=command.cause)
        await store.save(tx, vault)
    return customer


async def change_consent(
    tx: Tx, keyring: Keyring, customer_id: UUID, purpose: str, granted: bool, source: str, command: Command
) -> Customer:
    """Grant or withdraw; what holds already leaves no trace."""
    vault, customer = await _lock(tx, keyring, customer_id)
    if await tx.db.fetchval(CONSENT, customer.customer_id, purpose) is not granted:
        event = ConsentChanged(
            occurred_at=command.at, customer_id=customer.customer_id, purpose=purpose, granted=granted
        )
        publish(tx, vault.registry, event, cause=command.cause)
        await store.save(tx, vault)
        await tx.db.execute(SAVE_CONSENT, customer.customer_id, purpose, granted, source, command.actor, command.at)
    return customer


async def give_points(
    tx: Tx, keyring: Keyring, customer_id: UUID, points: int, reason: str, command: Command
) -> Customer:
    """Add points as goodwill, or take them back (negative); what is held for orders cannot be taken."""
    vault, customer = await _lock(tx, keyring, customer_id)
    if customer.guest:
        raise Problem(409, "Guest", "a guest has no points", code="guest")
    if customer.redeemable + points < 0:
        raise Problem(
            409, "Not enough points", f"{customer.redeemable} are available, {customer.held} more are held for orders",
            code="not_enough_points", errors=[{"field": "points", "message": "takes more than there is"}],
        )  # fmt: skip
    vault.registry.credit(customer.customer_id, points)
    await store.save(tx, vault)
    entry = uuid5(command.cause.id, "points")
    written = vault.data_key(customer.customer_id).encrypt("points_entries", "reason", entry, reason)
    await tx.db.execute(
        SAVE_POINTS, entry, customer.customer_id, points, "goodwill", written, command.actor, command.at
    )  # fmt: skip
    return customer


async def _lock(tx: Tx, keyring: Keyring, customer_id: UUID) -> tuple[Vault, Customer]:
    vault = Vault(keyring)
    await store.lock_customers(tx, vault, [customer_id])
    customer = vault.registry.customer(customer_id)
    if customer is None:
        raise Problem(404, "Not found", f"no customer {customer_id}")
    return vault, customer
