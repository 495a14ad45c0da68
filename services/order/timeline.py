"""What happened to orders, as their events told it, and what their customers were told: to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.events.notify import CareEvent
from shared.events.order import OrderEvent
from shared.messages import Batch
from shared.postgres import Tx, columns
from shared.topics import ORDERS
from shared.views import View

WRITE = """
INSERT INTO timeline (order_id, sequence, type, cause, detail, occurred_at, recorded_at)
SELECT *, coalesce($7::timestamptz, clock_timestamp())
FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::uuid[], $5::jsonb[], $6::timestamptz[])
"""

WRITE_AGAIN = """
INSERT INTO timeline (order_id, sequence, type, cause, detail, occurred_at, recorded_at)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::uuid[], $5::jsonb[], $6::timestamptz[],
                     $7::timestamptz[])
ON CONFLICT DO NOTHING
"""

WRITE_CARE = """
INSERT INTO care_steps (order_id, sequence, type, cause, detail, occurred_at, recorded_at)
SELECT n.* FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::uuid[], $5::jsonb[], $6::timestamptz[],
                       $7::timestamptz[])
     AS n (order_id, sequence, type, cause, detail, occurred_at, recorded_at)
JOIN orders o USING (order_id)
ON CONFLICT DO NOTHING
"""

LEFT_OUT = {"order_id", "occurred_at", "lines", "items", "allocations"}


async def write(tx: Tx, events: Sequence[tuple[OrderEvent, int, UUID]], at: datetime | None = None) -> None:
    """Note what happened to orders: each event with its sequence and cause; ``at`` this time, else now."""
    if events:
        rows = [row(event, sequence, cause) for event, sequence, cause in events]
        await tx.db.execute(WRITE, *columns(rows), at)


async def write_again(tx: Tx, batch: Batch[OrderEvent]) -> None:
    """The same from the log, at the time at which it was recorded first."""
    rows = [
        (*row(message.event, message.sequence, UUID(message.causation_id)), message.recorded_at)
        for message in batch
        if message.causation_id is not None  # as every event of an order has
    ]
    await tx.db.execute(WRITE_AGAIN, *columns(rows))


TIMELINE = View("timeline", (ORDERS,), ("timeline",), write_again, own=True)


def row(event: OrderEvent, sequence: int, cause: UUID) -> tuple[Any, ...]:
    """Order, sequence, type, cause, detail, business time."""
    detail = event.model_dump(mode="json", exclude=LEFT_OUT, exclude_none=True)
    return event.order_id, sequence, type(event).__name__, cause, detail, event.occurred_at


async def write_care(tx: Tx, batch: Batch[CareEvent]) -> None:
    """Note what was told to customers about their orders; of orders that are not there, nothing."""
    rows = [
        (
            message.event.order_id, message.sequence, type(message.event).__name__, message.id,
            message.event.model_dump(mode="json", exclude={"order_id", "occurred_at"}, exclude_none=True),
            message.event.occurred_at, message.recorded_at,
        )
        for message in batch
    ]  # fmt: skip
    await tx.db.execute(WRITE_CARE, *columns(rows))
