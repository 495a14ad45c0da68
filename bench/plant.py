"""Violations planted on purpose: a checker that cannot fail is no checker.

All but one are planted in tables, and mended afterwards. Kafka's log cannot be mended: ``spoil`` is for one that is
thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

from bench.foreign import put
from bench.platform import SERVICES, Platform, PlatformError, database
from deploy.local.stack import Stack
from shared.events.pricing import PriceChanged
from shared.topics import PRICES

NOBODY = "00000000-0000-0000-0000-000000000000"  # the id of what is planted

# At rest for the checker, and not yet for the reconciler. Of a partition that is not there: else the service would end
# an open one, and say so in Kafka for ever.
ORDER = f"""
INSERT INTO orders (order_id, channel, external_reference, fingerprint, partition, state, version, currency, prepaid,
                    request, traceparent, deadline_at, placed_at, changed_at)
SELECT '{NOBODY}', 'planted', 'planted', '', -1, state, 0, 'GBP', false, '{{"lines": []}}', '', deadline, now(),
       now() - interval '10 s' FROM (VALUES (%s)) AS planted (state, deadline)
"""
NO_ORDER = "DELETE FROM orders WHERE channel = 'planted'"

# One more transaction of an order that rests; only the owner of the table, for a moment, can take it back.
ENTRY = f"""
INSERT INTO ledger (order_id, cause, currency, kind, accounts, amounts, occurred_at)
SELECT order_id, '{NOBODY}', currency, 'planted', '{{%s}}', '{{%s}}', now() FROM orders
WHERE state IN ('confirmed', 'closed') ORDER BY state <> 'closed', order_id LIMIT 1
"""
NO_ENTRY = f"""
GRANT DELETE ON ledger TO CURRENT_USER;
DELETE FROM ledger WHERE cause = '{NOBODY}';
REVOKE DELETE ON ledger FROM CURRENT_USER
"""

DELIVERED = """
(order_id, number) = (SELECT order_id, number FROM parcels p JOIN orders o USING (order_id)
                      WHERE p.state = 'delivered' AND p.tracking IS NOT NULL AND o.state = 'closed'
                      ORDER BY order_id LIMIT 1)
"""
FIRST_CUSTOMER = "customer_id = (SELECT customer_id FROM customers ORDER BY customer_id LIMIT 1)"
FIRST_PLACE = "(sku, warehouse) = (SELECT sku, warehouse FROM stock ORDER BY sku, warehouse LIMIT 1)"


@dataclass(frozen=True)
class Violation:
    """Statements that break an invariant in one service's tables, and those that mend it; the break is the last one.

    ``told`` is a part of what the checker then says; ``beside`` is planted first, in another service.
    """

    service: str
    break_: str
    mend: str
    told: str = ""
    beside: Violation | None = None


VIOLATIONS: Mapping[str, Violation] = {
    "I1": Violation(
        "inventory",
        """INSERT INTO movements (sku, warehouse, quantity, kind, actor, occurred_at)
           SELECT sku, warehouse, 1, 'planted', 'demo', now() FROM stock LIMIT 1""",
        "DELETE FROM movements WHERE kind = 'planted'",
        "moved",
    ),
    "I1-level": Violation(
        "inventory",
        f"UPDATE stock SET on_hand = on_hand + 1 WHERE {FIRST_PLACE}",
        f"UPDATE stock SET on_hand = on_hand - 1 WHERE {FIRST_PLACE}",
        "on hand",
    ),
    "I1-hold": Violation(
        "inventory",
        f"""INSERT INTO holds (order_id, state, version) VALUES ('{NOBODY}', 'held', 0);
            INSERT INTO hold_lines SELECT '{NOBODY}', sku, warehouse, 1 FROM stock LIMIT 1""",
        f"DELETE FROM hold_lines WHERE order_id = '{NOBODY}'; DELETE FROM holds WHERE order_id = '{NOBODY}'",
        "reserved",
    ),
    "I2": Violation(
        "order",
        "GRANT UPDATE ON ledger TO CURRENT_USER",
        "REVOKE UPDATE ON ledger FROM CURRENT_USER",
        "may UPDATE",
    ),
    "I2-balance": Violation(  # which the database refuses, as long as it may
        "order",
        f"""ALTER TABLE ledger DROP CONSTRAINT balanced;
            INSERT INTO ledger (order_id, cause, currency, kind, accounts, amounts, occurred_at)
            VALUES ('{NOBODY}', '{NOBODY}', 'GBP', 'planted', '{{cash,revenue}}', '{{2,-1}}', now())""",
        f"{NO_ENTRY}; ALTER TABLE ledger ADD CONSTRAINT balanced CHECK (total_of(amounts) = 0)",
        "planted of order",
    ),
    "I3": Violation(
        "order",
        """UPDATE payments SET captured = captured + 1, redirect_url = 'planted' WHERE payment_id =
           (SELECT payment_id FROM payments WHERE state = 'captured' AND redirect_url IS NULL LIMIT 1)""",
        "UPDATE payments SET captured = captured - 1, redirect_url = NULL WHERE redirect_url = 'planted'",
        "theirs",
    ),
    "I3-provider": Violation(
        "order",
        f"""UPDATE payments SET payment_id = '{NOBODY}', redirect_url = payment_id::text WHERE payment_id =
            (SELECT payment_id FROM payments WHERE state = 'declined' AND provider = 'card' LIMIT 1)""",
        f"UPDATE payments SET payment_id = redirect_url::uuid, redirect_url = NULL WHERE payment_id = '{NOBODY}'",
        "known to the provider only",
    ),
    "I3-ledger": Violation("order", ENTRY % ("receivable,revenue", "1,-1"), NO_ENTRY, "receivable 1"),
    "I3-cash": Violation("order", ENTRY % ("cash,receivable", "1,-1"), NO_ENTRY, "in the ledger"),
    "I3-carrier": Violation(
        "order",
        f"UPDATE parcels SET tracking = tracking || '/planted' WHERE {DELIVERED}",
        "UPDATE parcels SET tracking = replace(tracking, '/planted', '') WHERE tracking LIKE '%/planted'",
        "at the carrier",
    ),
    "I3-carriage": Violation("order", ENTRY % ("shipping,carrier_payable", "1,-1"), NO_ENTRY, "the carrier asks for"),
    "I4": Violation(  # seen where a client's log is compared: the last order was acknowledged to somebody
        "order",
        """UPDATE orders SET external_reference = external_reference || '/planted' WHERE order_id =
           (SELECT order_id FROM orders WHERE channel <> 'planted' ORDER BY order_id DESC LIMIT 1)""",
        """UPDATE orders SET external_reference = replace(external_reference, '/planted', '')
           WHERE external_reference LIKE '%/planted'""",
        "was acknowledged as",
    ),
    "I5": Violation("order", ORDER % "'placed', now() - interval '1 day'", NO_ORDER, "stuck"),
    "I5-ended": Violation("order", ORDER % "'cancelled', NULL::timestamptz", NO_ORDER, "was ended 0 times"),
    "I5-held": Violation(
        "inventory",
        f"""INSERT INTO holds (order_id, state, version) VALUES ('{NOBODY}', 'held', 0);
            INSERT INTO hold_lines
            SELECT '{NOBODY}', sku, warehouse, 1 FROM stock WHERE reserved < on_hand ORDER BY sku LIMIT 1;
            UPDATE stock s SET reserved = reserved + 1 FROM hold_lines h
            WHERE h.order_id = '{NOBODY}' AND (h.sku, h.warehouse) = (s.sku, s.warehouse)""",
        f"""UPDATE stock s SET reserved = reserved - 1 FROM hold_lines h
            WHERE h.order_id = '{NOBODY}' AND (h.sku, h.warehouse) = (s.sku, s.warehouse);
            DELETE FROM hold_lines WHERE order_id = '{NOBODY}'; DELETE FROM holds WHERE order_id = '{NOBODY}'""",
        "still holds stock",
        Violation("order", ORDER % "'cancelled', NULL::timestamptz", NO_ORDER),
    ),
    "I5-parcel": Violation(
        "order",
        f"UPDATE parcels SET state = 'dropped', carrier = carrier || '/planted' WHERE {DELIVERED}",
        """UPDATE parcels SET state = 'delivered', carrier = replace(carrier, '/planted', '')
           WHERE carrier LIKE '%/planted'""",
        "in its parcels None",
    ),
    "I5-points": Violation(
        "customer",
        f"UPDATE customers SET points_balance = points_balance + 1 WHERE {FIRST_CUSTOMER}",
        f"UPDATE customers SET points_balance = points_balance - 1 WHERE {FIRST_CUSTOMER}",
        "points of",
    ),
    "I5-coupon": Violation(
        "pricing",
        "INSERT INTO coupons (code, percent, priority, used) VALUES ('planted', 1, 0, 1)",
        "DELETE FROM coupons WHERE code = 'planted'",
        "coupon planted",
    ),
    "I6": Violation(
        "inventory",
        "UPDATE items SET version = version + 1 WHERE sku = (SELECT min(sku) FROM items)",
        "UPDATE items SET version = version - 1 WHERE sku = (SELECT min(sku) FROM items)",
        "in Kafka",
    ),
    "I6-row": Violation(
        "pricing",
        "UPDATE price_versions SET sku = sku || '/planted' WHERE sku = (SELECT min(sku) FROM price_versions)",
        "UPDATE price_versions SET sku = replace(sku, '/planted', '') WHERE sku LIKE '%/planted'",
        "but no row",
    ),
    "I8": Violation(
        "pricing",
        f"INSERT INTO inbox (day, consumer, event_id) VALUES (current_date, 'price_orders', '{NOBODY}')",
        f"DELETE FROM inbox WHERE event_id = '{NOBODY}'",
        "price_orders",
    ),
    "I8-mark": Violation(
        "inventory",
        """UPDATE inbox SET consumer = 'planted' WHERE (day, consumer, event_id) =
           (SELECT day, consumer, event_id FROM inbox WHERE consumer = 'hold_stock' LIMIT 1)""",
        "UPDATE inbox SET consumer = 'hold_stock' WHERE consumer = 'planted'",
        "hold_stock",
    ),
    "I9": Violation(
        "notify",
        "UPDATE consumer_offsets SET skipped = skipped + 1 WHERE partition = 0",
        "UPDATE consumer_offsets SET skipped = skipped - 1 WHERE partition = 0",
        "accounted for",
    ),
    "I9-lost": Violation(
        "inventory",
        "UPDATE consumer_offsets SET start_offset = start_offset - 1 WHERE consumer = 'hold_stock' AND partition = 0",
        "UPDATE consumer_offsets SET start_offset = start_offset + 1 WHERE consumer = 'hold_stock' AND partition = 0",
        "hold_stock",
    ),
}


def invariant_of(planted: str) -> str:
    """The invariant that a violation of this name breaks."""
    return planted.partition("-")[0]


def check(invariant: str) -> None:
    """Raise PlatformError unless a violation of this name can be planted."""
    if invariant not in VIOLATIONS:
        raise PlatformError(f"no violation of {invariant} can be planted here; choose from {', '.join(VIOLATIONS)}")


async def plant(platform: Platform, invariant: str) -> None:
    """Break ``invariant`` in the running platform's tables; raises PlatformError where there is nothing to break."""
    violation = VIOLATIONS[invariant]
    if violation.beside is not None:
        await _run(platform, violation.beside.service, violation.beside.break_)
    done = await _run(platform, violation.service, violation.break_)
    if done.endswith(" 0"):
        await undo(platform, invariant)
        raise PlatformError(f"there is nothing yet that {invariant} could be broken with")


async def undo(platform: Platform, invariant: str) -> None:
    violation = VIOLATIONS[invariant]
    await _run(platform, violation.service, violation.mend)
    if violation.beside is not None:
        await _run(platform, violation.beside.service, violation.beside.mend)


async def spoil(stack: Stack) -> str:
    """Break I7 for ever: an event with sequence 2 of a SKU that has no first one. Returns the SKU.

    Raises PlatformError where a service runs: its log is needed.
    """
    if any(stack.pid(service) for service in SERVICES):
        raise PlatformError("the services of this stack live by its log, which cannot be mended")
    now, sku = datetime.now(UTC), f"planted-{uuid4().hex[:8]}"
    event = PriceChanged(
        occurred_at=now, sku=sku, price_list="planted", currency="GBP", unit_price=Decimal(1), valid_from=now
    )
    await put(stack.bootstrap_servers, PRICES, PRICES.type_of(PriceChanged), sku, event.model_dump_json().encode(), 2)
    return sku


async def _run(platform: Platform, service: str, statements: str) -> str:
    """All of them, or none; returns the tag of the last one."""
    async with database(platform.stack, service) as connection:
        return await connection.execute(statements)
