"""Violations planted on purpose: a checker that cannot fail is no checker."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from bench.platform import Platform, PlatformError


@dataclass(frozen=True)
class Violation:
    """Statements that break an invariant in one service's tables, and those that mend it."""

    service: str
    break_: str
    mend: str


VIOLATIONS = {
    "I1": Violation(
        "inventory",
        """INSERT INTO movements (sku, warehouse, quantity, kind, actor, occurred_at)
           SELECT sku, warehouse, 1, 'planted', 'demo', now() FROM stock LIMIT 1""",
        "DELETE FROM movements WHERE kind = 'planted'",
    ),
    "I2": Violation(  # what does not balance, the database itself refuses
        "order", "GRANT UPDATE ON ledger TO CURRENT_USER", "REVOKE UPDATE ON ledger FROM CURRENT_USER"
    ),
    "I3": Violation(
        "order",
        """UPDATE payments SET captured = captured + 1, redirect_url = 'planted' WHERE payment_id =
           (SELECT payment_id FROM payments WHERE state = 'captured' AND redirect_url IS NULL LIMIT 1)""",
        "UPDATE payments SET captured = captured - 1, redirect_url = NULL WHERE redirect_url = 'planted'",
    ),
    "I5": Violation(  # of a partition that is not there: else the service would end it, and say so in Kafka for ever
        "order",
        """INSERT INTO orders (order_id, channel, external_reference, fingerprint, partition, state, version, currency,
                               prepaid, request, traceparent, deadline_at, placed_at)
           VALUES (gen_random_uuid(), 'planted', 'planted', '', -1, 'placed', 0, 'GBP', false, '{"lines": []}', '',
                   now() - interval '1 day', now())""",
        "DELETE FROM orders WHERE channel = 'planted'",
    ),
    "I6": Violation(
        "inventory",
        "UPDATE items SET version = version + 1 WHERE sku = (SELECT min(sku) FROM items)",
        "UPDATE items SET version = version - 1 WHERE sku = (SELECT min(sku) FROM items)",
    ),
    "I8": Violation(
        "pricing",
        """INSERT INTO inbox (day, consumer, event_id)
           VALUES (current_date, 'price_orders', '00000000-0000-0000-0000-000000000000')""",
        "DELETE FROM inbox WHERE event_id = '00000000-0000-0000-0000-000000000000'",
    ),
    "I9": Violation(
        "notify",
        "UPDATE consumer_offsets SET skipped = skipped + 1 WHERE partition = 0",
        "UPDATE consumer_offsets SET skipped = skipped - 1 WHERE partition = 0",
    ),
}


def check(invariant: str) -> None:
    """Raise PlatformError unless a violation of ``invariant`` can be planted."""
    if invariant not in VIOLATIONS:
        raise PlatformError(f"no violation of {invariant} can be planted here; choose from {', '.join(VIOLATIONS)}")


async def plant(platform: Platform, invariant: str) -> None:
    """Break ``invariant`` in the running platform's tables."""
    await _run(platform, invariant, mend=False)


async def undo(platform: Platform, invariant: str) -> None:
    await _run(platform, invariant, mend=True)


async def _run(platform: Platform, invariant: str, *, mend: bool) -> None:
    violation = VIOLATIONS[invariant]
    connection = await asyncpg.connect(platform.stack.database_url(violation.service))
    try:
        await connection.execute(violation.mend if mend else violation.break_)
    finally:
        await connection.close()
