"""What an order waits for longer than it should, in words; and how that is made due now."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel

from shared.postgres import Connection, Row, Tx

# Each with $1 seconds overdue and $2 rows; calls also with $3, tries without a clear answer.
DEADLINES = """
SELECT order_id, 'deadline' AS what, state, deadline_at AS due_at, changed_at AS since, true AS overdue,
       array_remove(ARRAY[CASE WHEN NOT identified THEN 'identification' END,
                          CASE WHEN priced_lines IS NULL THEN 'price' END,
                          CASE WHEN NOT held THEN 'stock' END], NULL) AS missing
FROM orders WHERE deadline_at < now() - $1 * interval '1 second' ORDER BY deadline_at LIMIT $2
"""

# While the buyer is at the bank the provider is asked again and again: that is no trouble.
PAYMENTS = """
SELECT p.order_id, 'payment' AS what, p.state, p.attempts, p.due_at, o.changed_at AS since, p.closing,
       p.due_at < now() - $1 * interval '1 second' AS overdue
FROM payments p JOIN orders o USING (order_id)
WHERE p.due_at < now() - $1 * interval '1 second'
   OR (p.due_at IS NOT NULL AND p.attempts > $3 AND (p.state = 'requested' OR p.closing))
ORDER BY p.due_at LIMIT $2
"""

REFUNDS = """
SELECT r.order_id, 'refund' AS what, r.refund_id, r.state, r.attempts, r.due_at, o.changed_at AS since, r.declines,
       r.due_at < now() - $1 * interval '1 second' AS overdue, p.provider_reference IS NULL AS unknown_there
FROM refunds r JOIN orders o USING (order_id) JOIN payments p USING (payment_id)
WHERE r.due_at < now() - $1 * interval '1 second' OR (r.due_at IS NOT NULL AND r.attempts > $3)
ORDER BY r.due_at LIMIT $2
"""

# What is planned is not booked while the order is being cancelled.
PARCELS = """
SELECT p.order_id, 'parcel' AS what, p.number AS parcel, p.state, p.attempts, p.due_at, p.since,
       p.due_at < now() - $1 * interval '1 second' AS overdue
FROM parcels p JOIN orders o USING (order_id)
WHERE p.due_at IS NOT NULL AND NOT (p.state = 'planned' AND o.cancellation IS NOT NULL)
  AND (p.due_at < now() - $1 * interval '1 second' OR (p.state IN ('booking', 'recalling') AND p.attempts > $3))
ORDER BY p.due_at LIMIT $2
"""

# `changed_at` moves with every reminder, so it does not say since when.
ANSWERS = """
SELECT o.order_id, 'answers' AS what, o.state, settled.at AS since, false AS overdue, o.points_settled,
       ARRAY(SELECT number FROM parcels p WHERE p.order_id = o.order_id AND p.state IN ('shipped', 'delivered', 'lost')
                                            AND NOT p.issued ORDER BY number) AS not_issued
FROM orders o CROSS JOIN LATERAL
     (SELECT min(recorded_at) AS at FROM timeline t WHERE t.order_id = o.order_id AND t.type = 'OrderSettled') settled
WHERE o.settled AND o.state = 'confirmed' AND settled.at < now() - $1 * interval '1 second'
ORDER BY settled.at LIMIT $2
"""

WAKE_PAYMENT = """
UPDATE payments SET due_at = least(due_at, now()) WHERE order_id = $1 AND due_at IS NOT NULL
RETURNING 'payment' AS what, state, attempts
"""

WAKE_REFUNDS = """
UPDATE refunds SET due_at = least(due_at, now()) WHERE order_id = $1 AND due_at IS NOT NULL
RETURNING 'refund' AS what, refund_id, state, attempts
"""

# What is planned waits for its channel, or for the cancellation of its order: nobody can be asked.
WAKE_PARCELS = """
UPDATE parcels AS p SET due_at = least(p.due_at, now()) FROM orders o
WHERE p.order_id = $1 AND o.order_id = p.order_id AND p.due_at IS NOT NULL
  AND NOT (p.state = 'planned' AND (o.fulfilment <> 'carrier' OR o.cancellation IS NOT NULL))
RETURNING 'parcel' AS what, p.number AS parcel, p.state, p.attempts
"""

What = Literal["deadline", "payment", "refund", "parcel", "answers"]


class Piece(BaseModel):
    """One thing that an order waits for; ``state`` is that of the payment, refund or parcel, else of the order."""

    what: What
    parcel: int | None = None
    refund_id: UUID | None = None
    state: str
    attempts: int | None = None


class Stuck(Piece):
    """``waits_for`` in words. ``due_at``: when it should have been, or will next be, looked at.

    ``since``: when the parcel or the order last changed, or the order was settled.
    """

    order_id: UUID
    waits_for: str
    due_at: datetime | None = None
    since: datetime


async def stuck(db: Connection, older_than: float, attempts: int, limit: int) -> list[Stuck]:
    """What is overdue by so many seconds, or was tried more often than ``attempts`` without a clear answer.

    At most ``limit`` of each kind; what has been so for longest comes first.
    """
    rows = [*await db.fetch(DEADLINES, older_than, limit), *await db.fetch(ANSWERS, older_than, limit)]
    for query in (PAYMENTS, REFUNDS, PARCELS):
        rows += await db.fetch(query, older_than, limit, attempts)
    return sorted((Stuck(**row, waits_for=waits_for(row)) for row in rows), key=lambda one: one.since)


def waits_for(row: Row | dict[str, Any]) -> str:
    """In words."""
    match row["what"], row["state"]:
        case "deadline", "paying":
            return "somebody to judge its deadline, which asks the provider to close the payment"
        case "deadline", _:
            missing = ", ".join(row["missing"]) or "nothing any more"
            return f"{missing}; and for somebody to judge its deadline: no order process runs, or it is behind"
        case "answers", _:
            parcels = ", ".join(str(number) for number in row["not_issued"])
            asked = [f"StockIssued of parcel {parcels} by inventory"] if parcels else []
            asked += [] if row["points_settled"] else ["PointsSettled by customer"]
            return " and ".join(asked) or "nothing any more: retry it"
        case "refund", _ if row["unknown_there"]:
            return "a payment that the provider has a reference for: without one nothing can go back"
        case _ if row["overdue"]:
            return "somebody to ask: no order process runs, or its workers fail (isthmus_retries_total)"
        case "payment", _ if row["closing"]:
            return "the provider's word that the payment is closed"
        case "payment", _:
            return "a clear answer of the payment provider: order's log has `payment outcome unknown`"
        case "refund", _ if row["declines"]:
            return f"the payment provider, which has declined the refund {row['declines']} times"
        case "refund", _:
            return "a clear answer of the payment provider: order's log has `refund outcome unknown`"
        case "parcel", "recalling":
            return "the carrier's word on a cancellation; others are answered with 409 until then"
        case _:
            return "a clear answer of the carrier, or of customer: order's log has `parcel: no answer`"


async def wake(tx: Tx, order_id: UUID) -> list[Piece]:
    """Make due now whatever the order waits for at provider and carrier; the order must be locked."""
    woken: list[Piece] = []
    for query in (WAKE_PAYMENT, WAKE_REFUNDS, WAKE_PARCELS):
        woken += [Piece(**row) for row in await tx.db.fetch(query, order_id)]
    return woken
