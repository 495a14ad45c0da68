"""What orders hold of points, for those who compare."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from shared.holdings import Holding
from shared.postgres import Connection

HELD = "SELECT order_id, points_held FROM identifications WHERE order_id = ANY($1::uuid[]) AND points_held > 0"


async def load(db: Connection, order_ids: Sequence[UUID]) -> list[Holding]:
    """The points that these orders have taken; those that have none are absent."""
    rows = await db.fetch(HELD, order_ids)
    return [Holding(order_id=row["order_id"], points=row["points_held"]) for row in rows]
