"""Discounts: what tiers and coupons take off each line, and in which order. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from services.pricing.asks import Ask, Refusal
from shared.money import MINOR_DIGITS, round_money

ZERO = Decimal(0)


@dataclass(frozen=True)
class TierRule:
    percent: Decimal
    priority: int = 100


@dataclass
class Coupon:
    """``percent`` or ``amount`` off; limits of None are none. ``held_by`` counts the uses that customers hold."""

    code: str
    percent: Decimal | None = None
    amount: Decimal | None = None
    currency: str | None = None
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    minimum: Decimal | None = None
    limit_total: int | None = None
    limit_per_customer: int | None = None
    priority: int = 200
    used: int = 0
    held_by: dict[UUID, int] = field(default_factory=dict[UUID, int])

    def refusal(self, ask: Ask, value: Decimal) -> Refusal | None:
        """Why this coupon cannot be used; ``value`` is that of the goods before any discount.

        A guest cannot be told from another guest, so a coupon limited per customer needs a known one.
        """
        if self.currency not in (None, ask.currency):
            return Refusal("coupon_not_valid", f"{self.code} is for orders in {self.currency}")
        if self.valid_from is not None and ask.at < self.valid_from:
            return Refusal("coupon_not_valid", f"{self.code} is valid from {self.valid_from.isoformat()}")
        if self.valid_until is not None and ask.at >= self.valid_until:
            return Refusal("coupon_not_valid", f"{self.code} was valid until {self.valid_until.isoformat()}")
        if self.limit_per_customer is not None and ask.customer_id is None:
            return Refusal("coupon_not_valid", f"{self.code} is limited per customer: the order must name one")
        if self.minimum is not None and value < self.minimum:
            return Refusal("coupon_minimum", f"{self.code} needs an order of {self.minimum} {self.currency} or more")
        return self.used_up(ask.customer_id)

    def used_up(self, customer_id: UUID | None) -> Refusal | None:
        """Why there is no use left, in total or for this customer."""
        if self.limit_total is not None and self.used >= self.limit_total:
            return Refusal("coupon_used_up", f"{self.code} has been used up")
        held = self.held_by.get(customer_id, 0) if customer_id is not None else 0
        if self.limit_per_customer is not None and held >= self.limit_per_customer:
            return Refusal("coupon_used_up", f"the customer has used {self.code} up")
        return None

    def shares(self, values: Sequence[Decimal], currency: str) -> list[Decimal]:
        """What it takes off each line; together at most what the lines are worth."""
        worth = sum(values, ZERO)
        if self.percent is not None:
            return distribute(round_money(worth * self.percent / 100, currency), values, currency)
        return distribute(min(worth, round_money(self.amount or ZERO, currency)), values, currency)


def stacked(
    values: Sequence[Decimal], listed: Sequence[bool], rule: TierRule, coupon: Coupon | None, currency: str
) -> tuple[list[Decimal], list[Decimal]]:
    """The tier's and the coupon's discount per line; the one of higher priority (lower number) is taken off first."""

    def tiers(left: Sequence[Decimal]) -> list[Decimal]:
        return [
            round_money(value * rule.percent / 100, currency) if own else ZERO
            for value, own in zip(left, listed, strict=True)
        ]

    if coupon is None:
        return tiers(values), [ZERO] * len(values)
    if coupon.priority < rule.priority:
        by_coupon = coupon.shares(values, currency)
        return tiers(_less(values, by_coupon)), by_coupon
    by_tier = tiers(values)
    return by_tier, coupon.shares(_less(values, by_tier), currency)


def _less(values: Sequence[Decimal], discounts: Sequence[Decimal]) -> list[Decimal]:
    return [value - discount for value, discount in zip(values, discounts, strict=True)]


def distribute(amount: Decimal, values: Sequence[Decimal], currency: str) -> list[Decimal]:
    """Shares of ``amount`` in proportion to ``values``, by largest remainder: they sum exactly, none above its value.

    ``amount`` and ``values`` are whole minor units, and ``amount`` at most the sum of ``values``.
    """
    digits = MINOR_DIGITS.get(currency, 2)
    units, weights = int(amount.scaleb(digits)), [int(value.scaleb(digits)) for value in values]
    whole = sum(weights)
    if whole == 0:
        return [ZERO for _ in values]
    shares = [units * weight // whole for weight in weights]
    largest = sorted(range(len(weights)), key=lambda i: (-(units * weights[i] % whole), i))
    for index in largest[: units - sum(shares)]:  # only where something remains, so none exceeds its value
        shares[index] += 1
    return [Decimal(share).scaleb(-digits) for share in shares]
