"""What is commanded over HTTP: prices, price lists, coupons and tier rules; an ambiguous pair is a conflict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from services.pricing import catalogue, coupons, store
from services.pricing.discounts import Coupon
from shared.events.pricing import PriceChanged
from shared.messages import Cause
from shared.postgres import Tx
from shared.problems import Problem
from shared.topics import PRICES


@dataclass(frozen=True)
class Changed:
    """How many prices were changed, and which SKUs the product master has not named (yet)."""

    changed: int
    unknown_skus: Sequence[str]


async def change_prices(
    tx: Tx, price_list: str, prices: Mapping[str, Decimal], valid_from: datetime | None, cause: Cause
) -> Changed:
    """Set prices from ``valid_from`` (or from now) on; those that are already so stay untouched. Raises 422."""
    found = await catalogue.get_list(tx, price_list, to_change=False)
    if found is None:
        raise Problem(422, "Invalid input", f"there is no price list {price_list}; PUT it first", code="invalid",
                      errors=[{"field": "price_list", "message": f"unknown price list {price_list}"}])  # fmt: skip
    versions = await catalogue.lock_skus(tx, list(prices))
    now = datetime.now(UTC)
    at = valid_from or now
    before = await catalogue.in_force(tx, price_list, list(prices), at)

    def is_so(sku: str, price: Decimal) -> bool:
        known, since = before.get(sku, (None, at))
        return known == price and (valid_from is None or since == at)

    changes = {sku: price for sku, price in sorted(prices.items()) if not is_so(sku, price)}
    for sku, price in changes.items():
        versions[sku] += 1
        event = PriceChanged(
            occurred_at=now, sku=sku, price_list=price_list, currency=found["currency"], unit_price=price, valid_from=at
        )
        tx.publish(PRICES, event, cause=cause, sequence=versions[sku])
    if changes:
        await catalogue.save_prices(tx, price_list, changes, at, versions)
    known = await store.tax_classes(tx.db, prices)
    return Changed(len(changes), sorted(set(prices) - set(known)))


async def put_list(tx: Tx, code: str, name: str, currency: str, priority: int) -> None:
    """Create or change a price list. Raises 409 where two lists would have the same say, or prices another currency."""
    await catalogue.lock_priorities(tx)
    before = await catalogue.get_list(tx, code, to_change=True)
    if before is not None and before["currency"] != currency and await catalogue.has_prices(tx, code):
        raise Problem(409, "Currency in use", f"{code} has prices in {before['currency']}; make a list of its own",
                      code="currency_in_use", errors=[{"field": "currency", "message": "in use"}])  # fmt: skip
    if (other := await catalogue.list_of_priority(tx.db, currency, priority, code)) is not None:
        raise _ambiguous(f"the list {other} in {currency} has priority {priority} too: which one is to win?")
    await catalogue.save_list(tx, code, name, currency, priority)


async def put_tier_rule(tx: Tx, tier: str, percent: Decimal, priority: int) -> None:
    """Set what a tier takes off. Raises 409 where a coupon has the same priority."""
    await catalogue.lock_priorities(tx)
    if percent > 0 and (coupon := await catalogue.coupon_of_priority(tx, priority)) is not None:
        raise _ambiguous(f"the coupon {coupon} has priority {priority} too: which one is taken off first?")
    await catalogue.save_tier_rule(tx, tier, percent, priority)


async def put_coupon(tx: Tx, coupon: Coupon) -> None:
    """Create or change a coupon. Raises 409 where a tier has the same priority, or more uses are held than allowed."""
    await catalogue.lock_priorities(tx)
    if (tier := await coupons.tier_of_priority(tx, coupon.priority)) is not None:
        raise _ambiguous(f"the tier {tier} has priority {coupon.priority} too: which one is taken off first?")
    used = await coupons.lock(tx, coupon.code)
    if used is not None and coupon.limit_total is not None and used > coupon.limit_total:
        raise Problem(409, "Limit below uses", f"{coupon.code} has {used} uses already", code="limit_below_uses",
                      errors=[{"field": "limit_total", "message": f"{used} uses are held"}])  # fmt: skip
    await coupons.save(tx, coupon)


def _ambiguous(detail: str) -> Problem:
    return Problem(409, "Ambiguous priority", detail, code="ambiguous_priority",
                   errors=[{"field": "priority", "message": "taken"}])  # fmt: skip
