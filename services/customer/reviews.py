"""Tiers that fall because time has passed: looked at again when points that hold them up have grown old."""

from __future__ import annotations

from uuid import uuid5

from services.customer import ledger, store
from services.customer.decisions import review_tier
from services.customer.handlers import publish
from services.customer.keyring import Keyring
from services.customer.registry import Programme, Registry
from services.customer.store import Vault
from shared.messages import Cause
from shared.postgres import Database, Tx
from shared.work import Worker

AT_ONCE = 200
EVERY = 5.0  # seconds between two looks at an index that is nearly always empty up to the business clock


def tier_reviews(database: Database, keyring: Keyring, programme: Programme) -> Worker:
    """Lowers the tiers of customers whose points have grown old as business time advanced, once all is read up to it.

    What that guarantees says ``ledger.read_on``.
    """

    async def turn() -> bool:
        await ledger.read_on(database)
        async with database.transaction() as tx:
            return await review(tx, keyring, programme) == AT_ONCE

    return Worker("tier reviews", turn, every=EVERY)


async def review(tx: Tx, keyring: Keyring, programme: Programme) -> int:
    """Decide the tiers that are due, ``AT_ONCE`` at most, and return how many there were.

    Each falls at the business time at which its points grew old, also when the clock has gone far beyond. What
    another replica or a settlement has decided meanwhile is due no longer once the lock is had.
    """
    due = await ledger.due(tx, AT_ONCE)
    if not due:
        return 0
    vault = Vault(keyring, Registry(programme))
    await store.lock_customers(tx, vault, due)
    customers = [vault.registry.customers[one] for one in sorted(vault.registry.customers)]
    times = [one.review_at for one in customers if one.review_at is not None]
    await ledger.load(tx, vault.registry, vault.registry.customers, min(times, default=None))
    for customer in customers:
        cause = Cause(
            id=uuid5(customer.customer_id, f"tier review/{customer.version}"), correlation_id=str(customer.customer_id)
        )
        for outcome in review_tier(vault.registry, customer):
            publish(tx, vault.registry, outcome, cause=cause)
    await store.save(tx, vault)
    return len(due)
