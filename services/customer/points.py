"""Points: entries of the ledger, and what an order earns. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Literal
from uuid import UUID

from shared.money import MINOR_DIGITS

Kind = Literal["goodwill", "redeemed", "released", "part_released", "earned"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A customer's balance changes by ``points``, which is never 0.

    ``redeemed`` (negative) when an order takes points, ``part_released`` when part of it is cancelled, ``released``
    when it ends, ``earned`` when it is settled; ``goodwill`` belongs to no order. Stays in this service.
    """

    entry_id: UUID
    customer_id: UUID
    points: int
    kind: Kind
    occurred_at: datetime
    order_id: UUID | None = None


def earned(amount: Decimal, currency: str, per_unit: Mapping[str, Decimal]) -> int:
    """Whole points for ``amount`` in major units, rounded down.

    Where ``per_unit`` does not name the currency a major unit earns one point; without minor units, as JPY, 0.01.
    """
    usual = Decimal(1) if MINOR_DIGITS.get(currency, 2) else Decimal("0.01")
    points = (amount * per_unit.get(currency, usual)).to_integral_value(rounding=ROUND_FLOOR)
    return max(int(points), 0)
