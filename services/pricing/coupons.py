"""What is stored of coupons, as their editor sees them: queries beside ``store``'s."""

from __future__ import annotations

from uuid import UUID

from services.pricing.discounts import Coupon
from shared.postgres import Connection, Row, Tx

LOCK = "SELECT used FROM coupons WHERE code = $1 FOR UPDATE"

TIER_OF_PRIORITY = "SELECT tier FROM tier_rules WHERE priority = $1 AND percent > 0 ORDER BY tier LIMIT 1"

SAVE = """
INSERT INTO coupons (code, percent, amount, currency, valid_from, valid_until, minimum, limit_total, limit_per_customer,
                     priority)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (code) DO UPDATE SET percent = excluded.percent, amount = excluded.amount, currency = excluded.currency,
    valid_from = excluded.valid_from, valid_until = excluded.valid_until, minimum = excluded.minimum,
    limit_total = excluded.limit_total, limit_per_customer = excluded.limit_per_customer, priority = excluded.priority
"""

PAGE = """
SELECT code, percent, amount, currency, valid_from, valid_until, minimum, limit_total, limit_per_customer, priority,
       used
FROM coupons WHERE code > $1 ORDER BY code LIMIT $2
"""

GET = """
SELECT code, percent, amount, currency, valid_from, valid_until, minimum, limit_total, limit_per_customer, priority,
       used
FROM coupons WHERE code = $1
"""

USES = """
SELECT order_id, customer_id, state FROM coupon_uses WHERE coupon = $1 AND order_id > $2 ORDER BY order_id LIMIT $3
"""


async def lock(tx: Tx, code: str) -> int | None:
    """How many uses the coupon has, locked; None if there is no such coupon."""
    return await tx.db.fetchval(LOCK, code)


async def tier_of_priority(tx: Tx, priority: int) -> str | None:
    return await tx.db.fetchval(TIER_OF_PRIORITY, priority)


async def save(tx: Tx, coupon: Coupon) -> None:
    await tx.db.execute(
        SAVE, coupon.code, coupon.percent, coupon.amount, coupon.currency, coupon.valid_from, coupon.valid_until,
        coupon.minimum, coupon.limit_total, coupon.limit_per_customer, coupon.priority,
    )  # fmt: skip


async def page(db: Connection, after: str, limit: int) -> list[Row]:
    return await db.fetch(PAGE, after, limit)


async def get(db: Connection, code: str) -> Row | None:
    return await db.fetchrow(GET, code)


async def uses(db: Connection, code: str, after: UUID, limit: int) -> list[Row]:
    return await db.fetch(USES, code, after, limit)
