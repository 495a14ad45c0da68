"""What is stored of orders: their prices, their uses of coupons. One function per query; each batch a fixed number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from services.pricing import quotes
from services.pricing.asks import Ask
from services.pricing.decisions import Book, OrderPrice
from services.pricing.discounts import Coupon, TierRule
from services.pricing.rules import ListPrice, Rules
from shared.events.order import (
    OrderCancelled,
    OrderConfirmed,
    OrderEvent,
    OrderExpired,
    OrderPlaced,
    OrderRejected,
    OrderRestated,
)
from shared.postgres import Connection, Row, Tx, columns

ORDERS = """
SELECT order_id, state, version, customer_id, coupon FROM order_prices WHERE order_id = ANY($1::uuid[])
ORDER BY order_id FOR UPDATE
"""

COUPONS = """
SELECT code, percent, amount, currency, valid_from, valid_until, minimum, limit_total, limit_per_customer, priority,
       used
FROM coupons WHERE code = ANY($1::text[])
"""

LOCK_COUPONS = COUPONS + "ORDER BY code FOR UPDATE"

HELD_BY = """
SELECT coupon, customer_id, count(*) AS held FROM coupon_uses
WHERE coupon = ANY($1::text[]) AND customer_id = ANY($2::uuid[]) AND state = 'held' GROUP BY coupon, customer_id
"""

# Of the lists in this currency, the one of highest priority that has the SKU by then; of its prices the latest by then.
LIST_PRICES = """
SELECT w.number, found.unit_price, found.price_list
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) WITH ORDINALITY AS w (sku, currency, at, number)
CROSS JOIN LATERAL (
    SELECT p.unit_price, p.price_list
    FROM price_lists l CROSS JOIN LATERAL (
        SELECT unit_price, price_list FROM list_prices
        WHERE sku = w.sku AND price_list = l.code AND valid_from <= w.at ORDER BY valid_from DESC LIMIT 1
    ) p
    WHERE l.currency = w.currency ORDER BY l.priority DESC LIMIT 1
) found
"""

# All that prices depend on beside list prices and coupons, in one answer: rows as tuples.
TERMS = """
SELECT ARRAY(SELECT (customer_id, tier) FROM tiers WHERE customer_id = ANY($1::uuid[])) AS tiers,
       ARRAY(SELECT (tier, percent, priority) FROM tier_rules) AS tier_rules,
       ARRAY(SELECT (sku, tax_class) FROM items WHERE sku = ANY($2::text[])) AS tax_classes,
       ARRAY(SELECT (country, tax_class, percent, valid_from) FROM tax_rates WHERE country = ANY($3::text[])
             ORDER BY valid_from DESC) AS tax_rates,
       ARRAY(SELECT (currency, value) FROM point_values) AS point_values
"""

TAX_CLASSES = "SELECT sku, tax_class FROM items WHERE sku = ANY($1::text[])"

# Plain inserts: an order that another transaction has answered meanwhile fails the batch, which is then read anew.
SAVE_ORDERS = """
INSERT INTO order_prices (order_id, state, version, customer_id, coupon, answer)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::uuid[], $5::text[], $6::jsonb[])
"""

RELEASE_ORDERS = """
UPDATE order_prices SET version = n.version, coupon = NULL
FROM unnest($1::uuid[], $2::bigint[]) AS n (order_id, version)
WHERE order_prices.order_id = n.order_id
"""

SAVE_USED = """
UPDATE coupons SET used = n.used FROM unnest($1::text[], $2::bigint[]) AS n (code, used) WHERE coupons.code = n.code
"""

SAVE_USES = """
INSERT INTO coupon_uses (coupon, order_id, customer_id, state)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[])
ON CONFLICT (coupon, order_id) DO UPDATE SET state = excluded.state
"""

ORDER_PRICE = "SELECT order_id, state, coupon, answer FROM order_prices WHERE order_id = $1"


async def load(tx: Tx, events: Iterable[OrderEvent]) -> Book:
    """The orders of these events, and what they need. Locked are orders, then quotes, then coupons, each sorted."""
    placed: dict[UUID, OrderPlaced] = {}
    orders: set[UUID] = set()
    confirmed: set[UUID] = set()
    for event in events:
        match event:
            case OrderPlaced():
                placed[event.order_id] = event
                orders.add(event.order_id)
            case OrderRejected() | OrderCancelled() | OrderExpired() | OrderRestated():
                orders.add(event.order_id)
            case OrderConfirmed():
                confirmed.add(event.order_id)
            case _:
                pass
    if not orders and not confirmed:
        return Book()
    known = {row["order_id"]: _order(row) for row in await tx.db.fetch(ORDERS, sorted(orders))}
    new = [order for order_id, order in placed.items() if order_id not in known]
    named = {order.quote_id for order in new if order.quote_id is not None}
    quoted = await quotes.lock(tx, named, confirmed | known.keys())
    asks = [Ask.of(order) for order in new]
    held = [(order.coupon, order.customer_id) for order in known.values() if order.coupon is not None]
    coupons = await _coupons(
        tx.db, LOCK_COUPONS,
        {code for code, _ in held} | {ask.coupon for ask in asks if ask.coupon is not None},
        {buyer for _, buyer in held if buyer} | {ask.customer_id for ask in asks if ask.customer_id},
    )  # fmt: skip
    old = {quote.quote_id for quote in quoted.values() if quote.priced.point_value is None}
    priced_now = [Ask.of(order) for order in new if order.quote_id is None or order.quote_id in old]
    rules = await _rules(tx.db, priced_now, coupons)
    buyers = {order_id: order.customer_id for order_id, order in placed.items()}
    return Book(rules=rules, orders=known, buyers=buyers, quotes=quoted)


def _order(row: Row) -> OrderPrice:
    return OrderPrice(row["state"], row["version"], row["customer_id"], row["coupon"])


async def load_rules(db: Connection, ask: Ask) -> Rules:
    """What a quote needs to know; nothing is locked, and nothing held."""
    codes = {ask.coupon} if ask.coupon is not None else set[str]()
    coupons = await _coupons(db, COUPONS, codes, {ask.customer_id} if ask.customer_id else set[UUID]())
    return await _rules(db, [ask], coupons)


async def _coupons(db: Connection, query: str, codes: set[str], customers: set[UUID]) -> dict[str, Coupon]:
    if not codes:
        return {}
    coupons = {row["code"]: Coupon(**row) for row in await db.fetch(query, sorted(codes))}
    # After the lock: a statement of its own sees what the lock waited for.
    for row in await db.fetch(HELD_BY, list(coupons), list(customers)):
        coupons[row["coupon"]].held_by[row["customer_id"]] = row["held"]
    return coupons


async def _rules(db: Connection, asks: Sequence[Ask], coupons: dict[str, Coupon]) -> Rules:
    if not asks:
        return Rules(coupons=coupons)
    customers = {ask.customer_id for ask in asks if ask.customer_id is not None}
    skus, countries = {line.sku for ask in asks for line in ask.lines}, {ask.country for ask in asks}
    terms = await db.fetchrow(TERMS, list(customers), list(skus), list(countries))
    assert terms is not None
    tax_rates: dict[tuple[str, str], list[tuple[date, Decimal]]] = defaultdict(list)
    for country, tax_class, percent, valid_from in terms["tax_rates"]:
        tax_rates[country, tax_class].append((valid_from, percent))
    return Rules(
        list_prices=await _list_prices(db, asks),
        tiers=dict(terms["tiers"]),
        tier_rules={tier: TierRule(percent, priority) for tier, percent, priority in terms["tier_rules"]},
        coupons=coupons,
        tax_classes=dict(terms["tax_classes"]),
        tax_rates=tax_rates,
        point_values=dict(terms["point_values"]),
    )


async def _list_prices(db: Connection, asks: Sequence[Ask]) -> dict[tuple[str, str, datetime], ListPrice]:
    wanted = list({(line.sku, a.currency, a.at) for a in asks for line in a.lines if line.unit_price is None})
    if not wanted:
        return {}
    rows = await db.fetch(LIST_PRICES, *columns(wanted))
    return {wanted[row["number"] - 1]: ListPrice(row["unit_price"], row["price_list"]) for row in rows}


async def tax_classes(db: Connection, skus: Iterable[str]) -> dict[str, str]:
    """The tax classes of those SKUs that exist."""
    return {row["sku"]: row["tax_class"] for row in await db.fetch(TAX_CLASSES, list(skus))}


async def save(tx: Tx, book: Book) -> None:
    """Write back what ``load`` returned and decisions changed."""
    if book.new_orders:
        new = [(order_id, book.orders[order_id]) for order_id in sorted(book.new_orders)]
        await tx.db.execute(
            SAVE_ORDERS, [order_id for order_id, _ in new], [order.state for _, order in new],
            [order.version for _, order in new], [order.customer_id for _, order in new],
            [order.coupon for _, order in new],
            [order.answer and order.answer.model_dump(mode="json", exclude_none=True) for _, order in new],
        )  # fmt: skip
    if released := sorted(book.released_orders - book.new_orders):
        await tx.db.execute(RELEASE_ORDERS, released, [book.orders[order_id].version for order_id in released])
    await quotes.save(tx, [book.quotes[quote_id] for quote_id in sorted(book.changed_quotes)])
    if book.uses:
        codes = sorted({code for code, _ in book.uses})
        await tx.db.execute(SAVE_USED, codes, [book.rules.coupons[code].used for code in codes])
        uses = [
            (code, order_id, book.orders[order_id].customer_id, state) for (code, order_id), state in book.uses.items()
        ]
        await tx.db.execute(SAVE_USES, *columns(uses))


async def order_price(db: Connection, order_id: UUID) -> Row | None:
    return await db.fetchrow(ORDER_PRICE, order_id)
