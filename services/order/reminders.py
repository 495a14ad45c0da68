"""Orders that wait for an answer of another service are heard of again: nothing stays stuck."""

from __future__ import annotations

from datetime import UTC, datetime

from services.order import store
from services.order.decisions import remind
from shared.postgres import Database
from shared.telemetry import log

AT_ONCE = 100


async def remind_settled(database: Database) -> bool:
    """Say again what was not answered for minutes; whoever has heard it answers or does nothing."""
    async with database.transaction() as tx:
        waiting = await store.unanswered(tx, AT_ONCE)
        orders = await store.load(tx, waiting)
        now = datetime.now(UTC)
        for order in orders.by_id.values():
            log.warning("not answered; said again", order_id=str(order.order_id))
            cause = orders.cause(order.order_id, f"remind/{order.version}")
            orders.happen(tx, order, remind(order, now), cause, now)
        await store.save(tx, orders)
    return len(waiting) == AT_ONCE
