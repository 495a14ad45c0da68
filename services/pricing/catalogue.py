"""What is stored of price lists, tiers, taxes and products: queries beside ``store``'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from shared.postgres import Connection, Row, Tx, columns

# An event that comes late (a dead letter redriven) finds a newer version in place, and changes nothing.
LEARN_TIERS = """
INSERT INTO tiers (customer_id, tier, version) SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[])
ON CONFLICT (customer_id) DO UPDATE SET tier = excluded.tier, version = excluded.version
WHERE tiers.version < excluded.version
"""

LEARN_TAX_CLASSES = """
INSERT INTO items (sku, tax_class, version) SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
ON CONFLICT (sku) DO UPDATE SET tax_class = excluded.tax_class, version = excluded.version
WHERE items.version < excluded.version
"""

LIST_OF_PRIORITY = "SELECT code FROM price_lists WHERE currency = $1 AND priority = $2 AND code <> $3"

LOCK_LIST = "SELECT code, name, currency, priority FROM price_lists WHERE code = $1 FOR UPDATE"

SHARE_LIST = "SELECT code, name, currency, priority FROM price_lists WHERE code = $1 FOR SHARE"

SAVE_LIST = """
INSERT INTO price_lists (code, name, currency, priority) VALUES ($1, $2, $3, $4)
ON CONFLICT (code) DO UPDATE SET name = excluded.name, currency = excluded.currency, priority = excluded.priority
"""

HAS_PRICES = "SELECT EXISTS (SELECT FROM list_prices WHERE price_list = $1)"

LISTS = "SELECT code, name, currency, priority FROM price_lists ORDER BY currency, priority DESC"

NEW_SKUS = "INSERT INTO price_versions (sku) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"

LOCK_SKUS = "SELECT sku, version FROM price_versions WHERE sku = ANY($1::text[]) ORDER BY sku FOR UPDATE"

SAVE_VERSIONS = """
UPDATE price_versions SET version = n.version FROM unnest($1::text[], $2::bigint[]) AS n (sku, version)
WHERE price_versions.sku = n.sku
"""

IN_FORCE = """
SELECT w.sku, p.unit_price, p.valid_from FROM unnest($2::text[]) AS w (sku) CROSS JOIN LATERAL (
    SELECT unit_price, valid_from FROM list_prices
    WHERE sku = w.sku AND price_list = $1 AND valid_from <= $3 ORDER BY valid_from DESC LIMIT 1
) p
"""

SAVE_PRICES = """
INSERT INTO list_prices (sku, price_list, unit_price, valid_from)
SELECT sku, $1, unit_price, $2 FROM unnest($3::text[], $4::numeric[]) AS n (sku, unit_price)
ON CONFLICT (sku, price_list, valid_from) DO UPDATE SET unit_price = excluded.unit_price
"""

PRICES_OF_SKU = """
SELECT p.sku, p.price_list, l.currency, p.unit_price, p.valid_from, p.valid_from = (
    SELECT max(valid_from) FROM list_prices WHERE sku = p.sku AND price_list = p.price_list AND valid_from <= now()
) IS TRUE AS in_force
FROM list_prices p JOIN price_lists l ON l.code = p.price_list
WHERE p.sku = $1 AND (p.price_list, p.valid_from) > ($2, $3::timestamptz)
ORDER BY p.price_list, p.valid_from LIMIT $4
"""

# Tiers and coupons are compared with one another: whoever changes a priority of either waits for the other.
LOCK_PRIORITIES = "SELECT pg_advisory_xact_lock(hashtext('isthmus.pricing.priorities'))"

COUPON_OF_PRIORITY = "SELECT code FROM coupons WHERE priority = $1 ORDER BY code LIMIT 1"

SAVE_TIER_RULE = """
INSERT INTO tier_rules (tier, percent, priority) VALUES ($1, $2, $3)
ON CONFLICT (tier) DO UPDATE SET percent = excluded.percent, priority = excluded.priority
"""

TIER_RULES = "SELECT tier, percent, priority FROM tier_rules ORDER BY percent, tier"

SAVE_TAX_RATES = """
INSERT INTO tax_rates (country, tax_class, percent, valid_from)
SELECT * FROM unnest($1::text[], $2::text[], $3::numeric[], $4::date[])
ON CONFLICT (country, tax_class, valid_from) DO UPDATE SET percent = excluded.percent
"""

TAX_RATES = """
SELECT country, tax_class, percent, valid_from FROM tax_rates WHERE $1::text IS NULL OR country = $1
ORDER BY country, tax_class, valid_from
"""

SAVE_POINT_VALUE = """
INSERT INTO point_values (currency, value) VALUES ($1, $2) ON CONFLICT (currency) DO UPDATE SET value = excluded.value
"""

POINT_VALUES = "SELECT currency, value FROM point_values ORDER BY currency"


async def learn_tiers(tx: Tx, tiers: Mapping[UUID, tuple[str, int]]) -> None:
    if tiers:
        customers = sorted(tiers)
        await tx.db.execute(LEARN_TIERS, customers, [tiers[c][0] for c in customers], [tiers[c][1] for c in customers])


async def learn_tax_classes(tx: Tx, items: Mapping[str, tuple[str, int]]) -> None:
    if items:
        skus = sorted(items)
        await tx.db.execute(LEARN_TAX_CLASSES, skus, [items[s][0] for s in skus], [items[s][1] for s in skus])


async def list_of_priority(db: Connection, currency: str, priority: int, but: str) -> str | None:
    return await db.fetchval(LIST_OF_PRIORITY, currency, priority, but)


async def get_list(tx: Tx, code: str, *, to_change: bool) -> Row | None:
    """The list, locked: against everyone, or, for a change of its prices, against a change of its currency."""
    return await tx.db.fetchrow(LOCK_LIST if to_change else SHARE_LIST, code)


async def save_list(tx: Tx, code: str, name: str, currency: str, priority: int) -> None:
    await tx.db.execute(SAVE_LIST, code, name, currency, priority)


async def has_prices(tx: Tx, code: str) -> bool:
    return bool(await tx.db.fetchval(HAS_PRICES, code))


async def all_lists(db: Connection) -> list[Row]:
    return await db.fetch(LISTS)


async def lock_skus(tx: Tx, skus: Sequence[str]) -> dict[str, int]:
    """The versions of these SKUs' prices, locked in SKU order."""
    await tx.db.execute(NEW_SKUS, sorted(skus))
    return {row["sku"]: row["version"] for row in await tx.db.fetch(LOCK_SKUS, list(skus))}


async def in_force(tx: Tx, price_list: str, skus: Sequence[str], at: datetime) -> dict[str, tuple[Decimal, datetime]]:
    """Price and valid_from of each SKU that this list prices at that time."""
    rows = await tx.db.fetch(IN_FORCE, price_list, skus, at)
    return {row["sku"]: (row["unit_price"], row["valid_from"]) for row in rows}


async def save_prices(
    tx: Tx, price_list: str, prices: Mapping[str, Decimal], valid_from: datetime, versions: Mapping[str, int]
) -> None:
    skus = sorted(prices)
    await tx.db.execute(SAVE_PRICES, price_list, valid_from, skus, [prices[sku] for sku in skus])
    await tx.db.execute(SAVE_VERSIONS, skus, [versions[sku] for sku in skus])


async def prices_of(db: Connection, sku: str, after: tuple[str, datetime], limit: int) -> list[Row]:
    return await db.fetch(PRICES_OF_SKU, sku, *after, limit)


async def lock_priorities(tx: Tx) -> None:
    await tx.db.execute(LOCK_PRIORITIES)


async def coupon_of_priority(tx: Tx, priority: int) -> str | None:
    return await tx.db.fetchval(COUPON_OF_PRIORITY, priority)


async def save_tier_rule(tx: Tx, tier: str, percent: Decimal, priority: int) -> None:
    await tx.db.execute(SAVE_TIER_RULE, tier, percent, priority)


async def tier_rules(db: Connection) -> list[Row]:
    return await db.fetch(TIER_RULES)


async def save_tax_rates(tx: Tx, rates: Sequence[tuple[str, str, Decimal, date]]) -> None:
    await tx.db.execute(SAVE_TAX_RATES, *columns(rates))


async def tax_rates(db: Connection, country: str | None) -> list[Row]:
    return await db.fetch(TAX_RATES, country)


async def save_point_value(tx: Tx, currency: str, value: Decimal) -> None:
    await tx.db.execute(SAVE_POINT_VALUE, currency, value)


async def point_values(db: Connection) -> list[Row]:
    return await db.fetch(POINT_VALUES)
