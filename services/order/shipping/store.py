"""What is stored of parcels, and which of them are due. One function per query; each batch needs a fixed number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from services.order.state import FINAL, Order, Parcel
from shared.calls import LEASE_SECONDS, backoff
from shared.postgres import Row, Tx, columns

TRACK_SECONDS = 60  # notices are faster; this is for those that got lost
CHANNEL_SECONDS = 14 * 24 * 3600  # by when a channel that ships its orders itself should have said so
LONGEST_PAUSE = 3600

LOAD = """
SELECT order_id, number, warehouse, items, state, carrier, carrier_reference, tracking, promised_at, price, currency,
       bookings, late, issued, made_good, since
FROM parcels WHERE order_id = ANY($1::uuid[]) ORDER BY order_id, number FOR NO KEY UPDATE
"""

COLUMNS = """
unnest($1::uuid[], $2::smallint[], $3::text[], $4::jsonb[], $5::text[], $6::text[], $7::text[], $8::text[],
       $9::timestamptz[], $10::numeric[], $11::text[], $12::int[], $13::bool[], $14::bool[], $15::bool[], $16::float[])
AS n (order_id, number, warehouse, items, state, carrier, carrier_reference, tracking, promised_at, price, currency,
      bookings, late, issued, made_good, wait)
"""

# `wait`: seconds until the parcel is due; null where it is final or nothing new.
DUE = "now() + n.wait * interval '1 second'"

PLAN = f"""
INSERT INTO parcels (order_id, number, warehouse, items, state, carrier, carrier_reference, tracking, promised_at,
                     price, currency, bookings, late, issued, made_good, due_at)
SELECT n.order_id, n.number, n.warehouse, n.items, n.state, n.carrier, n.carrier_reference, n.tracking, n.promised_at,
       n.price, n.currency, n.bookings, n.late, n.issued, n.made_good, {DUE}
FROM {COLUMNS}
"""

# A promise that is not broken yet is due, too.
SAVE = f"""
UPDATE parcels AS p
SET items = n.items, state = n.state, carrier = n.carrier, carrier_reference = n.carrier_reference,
    tracking = n.tracking, promised_at = n.promised_at, price = n.price, currency = n.currency, bookings = n.bookings,
    late = n.late, issued = n.issued, made_good = n.made_good,
    attempts = CASE WHEN p.state = n.state THEN p.attempts ELSE 0 END,
    since = CASE WHEN p.state = n.state THEN p.since ELSE now() END,
    due_at = CASE WHEN n.state IN ('delivered', 'lost', 'refused', 'dropped') THEN NULL
                  WHEN n.wait IS NULL THEN p.due_at
                  ELSE least({DUE}, CASE WHEN NOT n.late AND n.promised_at > now() THEN n.promised_at END) END
FROM {COLUMNS} WHERE (p.order_id, p.number) = (n.order_id, n.number)
"""

# What is only planned waits while the order is being cancelled.
CLAIM = """
UPDATE parcels AS p
SET due_at = now() + $2 * interval '1 second', attempts = p.attempts + 1,
    state = CASE WHEN p.state = 'planned' AND o.fulfilment = 'carrier' THEN 'booking' ELSE p.state END,
    since = CASE WHEN p.state = 'planned' AND o.fulfilment = 'carrier' THEN now() ELSE p.since END
FROM orders o
WHERE o.order_id = p.order_id AND (p.order_id, p.number) IN
      (SELECT d.order_id, d.number FROM parcels d WHERE d.due_at <= now()
         AND NOT (d.state = 'planned' AND EXISTS
                  (SELECT FROM orders w WHERE w.order_id = d.order_id AND w.cancellation IS NOT NULL))
       ORDER BY d.due_at LIMIT $1 FOR UPDATE OF d SKIP LOCKED)
RETURNING p.order_id, p.number, p.warehouse, p.items, p.state, p.carrier_reference, p.bookings, p.attempts,
          p.due_at AS lease, o.recipient_id, o.fulfilment, o.traceparent, now() AS now
"""

AGAIN = """
UPDATE parcels SET due_at = least(now() + $3 * interval '1 second', CASE WHEN NOT late AND promised_at > now()
                                                                         THEN promised_at END)
WHERE order_id = $1 AND number = $2 AND due_at = $4
"""


async def load(tx: Tx, orders: Mapping[UUID, Order]) -> dict[UUID, dict[int, tuple[str, str | None]]]:
    """Give these orders their parcels; returns each one's state and carrier reference as it was."""
    was: dict[UUID, dict[int, tuple[str, str | None]]] = {}
    for row in await tx.db.fetch(LOAD, sorted(orders)):
        fields = dict(row)
        parcel = Parcel(**{name: value for name, value in fields.items() if name != "order_id"})
        orders[row["order_id"]].parcels.append(parcel)
        was.setdefault(row["order_id"], {})[parcel.number] = (parcel.state, parcel.carrier_reference)
    return was


async def save(
    tx: Tx, orders: Sequence[Order], was: Mapping[UUID, Mapping[int, tuple[str, str | None]]]
) -> bool:  # fmt: skip
    """Write back the parcels of these orders; returns whether one is due at once."""
    known: list[Sequence[Any]] = []
    new: list[Sequence[Any]] = []
    for order in orders:
        before = was.get(order.order_id, {})
        for one in order.parcels:
            (known if one.number in before else new).append(
                (
                    order.order_id, one.number, one.warehouse, one.items, one.state, one.carrier,
                    one.carrier_reference, one.tracking, one.promised_at, one.price, one.currency, one.bookings,
                    one.late, one.issued, one.made_good, _wait(order, one, before.get(one.number)),
                )
            )  # fmt: skip
    for query, rows in ((PLAN, new), (SAVE, known)):
        if rows:
            await tx.db.execute(query, *columns(rows))
    return any(row[-1] == 0 for row in [*new, *known])


def _wait(order: Order, parcel: Parcel, was: tuple[str, str | None] | None) -> float | None:
    """Seconds until something must be done about a parcel that changed; None where that is set already."""
    if was == (parcel.state, parcel.carrier_reference) or parcel.state in FINAL:
        return None
    match parcel.state:
        case "planned":
            return CHANNEL_SECONDS if order.fulfilment == "channel" else 0
        case "recalling" if parcel.carrier_reference is None:
            return None  # while the booking is being made its outcome is waited for
        case "recalling":
            return 0
        case _:
            return TRACK_SECONDS


async def claim(tx: Tx, room: int) -> list[Row]:
    """Parcels that are due, leased."""
    return await tx.db.fetch(CLAIM, room, LEASE_SECONDS)


async def again(tx: Tx, claimed: Row, *, tracking: bool) -> None:
    """Ask the carrier again later: soon when it gave no answer, at growing distances when it had nothing new.

    A parcel that was moved since it was claimed has another time, and keeps it.
    """
    attempts = claimed["attempts"]
    seconds = min(LONGEST_PAUSE, TRACK_SECONDS * 2 ** min(attempts, 6)) if tracking else backoff(attempts)
    await tx.db.execute(AGAIN, claimed["order_id"], claimed["number"], seconds, claimed["lease"])
