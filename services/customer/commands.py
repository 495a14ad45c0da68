"""What is commanded over HTTP: customers registered, tiers, consents and points changed; each returns what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid5

from services.customer import decisions, ledger, store
from services.customer.handlers import USUAL, publish
from services.customer.keyring import Keyring
from services.customer.people import Contact, Trait
from services.customer.registry import Customer, Outcome, Programme, Registry
from services.customer.store import Vault
from shared.events.customer import ConsentChanged
from shared.messages import Cause
from shared.postgres import Tx
from shared.problems import Problem

CONSENT = """
SELECT granted FROM consents WHERE customer_id = $1 AND purpose = $2 ORDER BY id DESC LIMIT 1
"""

SAVE_CONSENT = """
INSERT INTO consents (customer_id, purpose, granted, source, actor, occurred_at) VALUES ($1, $2, $3, $4, $5, $6)
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


async def put_tier(tx: Tx, keyring: Keyring, customer_id: UUID, tier: str, command: Command) -> Customer:
    """Put a customer into a tier, to stay there until ``free_tier``."""
    vault, customer = await _lock(tx, keyring, customer_id)
    await _do(tx, vault, decisions.pin_tier(customer, tier, command.at), command)
    return customer


async def free_tier(tx: Tx, keyring: Keyring, programme: Programme, customer_id: UUID, command: Command) -> Customer:
    """Let points decide again."""
    vault, customer = await _lock(tx, keyring, customer_id, programme)
    await ledger.load(tx, vault.registry, [customer.customer_id])
    await _do(tx, vault, decisions.unpin_tier(vault.registry, customer, command.at), command)
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
        await _do(tx, vault, [event], command)
        await tx.db.execute(SAVE_CONSENT, customer.customer_id, purpose, granted, source, command.actor, command.at)
    return customer


async def give_points(
    tx: Tx, keyring: Keyring, customer_id: UUID, points: int, reason: str, command: Command
) -> Customer:
    """Add points as goodwill, or take them back (negative); what orders have taken is not there to be taken."""
    vault, customer = await _lock(tx, keyring, customer_id)
    if customer.guest:
        raise Problem(409, "Guest", "a guest has no points", code="guest")
    entry = decisions.give(customer, points, entry_id=uuid5(command.cause.id, "points"), occurred_at=command.at)
    if entry is None:
        raise Problem(
            409, "Not enough points", f"{customer.balance} are available, {customer.held} more are held for orders",
            code="not_enough_points", errors=[{"field": "points", "message": "takes more than there is"}],
        )  # fmt: skip
    key = vault.data_key(customer.customer_id)
    vault.notes[entry.entry_id] = (key.encrypt("points_entries", "reason", entry.entry_id, reason), command.actor)
    await _do(tx, vault, [entry], command)
    return customer


async def _do(tx: Tx, vault: Vault, outcomes: Sequence[Outcome], command: Command) -> None:
    for outcome in outcomes:
        publish(tx, vault.registry, outcome, cause=command.cause)
    await store.save(tx, vault)


async def _lock(tx: Tx, keyring: Keyring, customer_id: UUID, programme: Programme = USUAL) -> tuple[Vault, Customer]:
    vault = Vault(keyring, Registry(programme))
    await store.lock_customers(tx, vault, [customer_id])
    customer = vault.registry.customer(customer_id)
    if customer is None:
        raise Problem(404, "Not found", f"no customer {customer_id}")
    return vault, customer
