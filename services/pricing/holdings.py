"""What orders hold of coupons and quotes, for those who compare."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from shared.holdings import Holding
from shared.postgres import Connection

# A quote that its order has spent is held no more.
HELD = """
SELECT o.order_id, u.coupon, q.quote_id
FROM order_prices o
LEFT JOIN coupon_uses u ON (u.coupon, u.order_id) = (o.coupon, o.order_id) AND u.state = 'held'
LEFT JOIN quotes q ON q.order_id = o.order_id AND q.state = 'held'
WHERE o.order_id = ANY($1::uuid[]) AND (u.coupon IS NOT NULL OR q.quote_id IS NOT NULL)
"""


async def load(db: Connection, order_ids: Sequence[UUID]) -> list[Holding]:
    """The coupons and quotes that these orders hold; those that have none are absent."""
    return [Holding(**row) for row in await db.fetch(HELD, order_ids)]
