"""What the invariants are judged by: rows of every database, every record in Kafka, provider's and carrier's logs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import orjson

from bench.platform import SERVICES, Platform
from shared.envelope import Record
from shared.kafka import read_all
from shared.topics import DOMAIN_TOPICS

Rows = list[dict[str, Any]]

# Per service, what is read; every service in one transaction that sees one instant.
QUERIES: Mapping[str, Mapping[str, str]] = {
    "order": {
        "orders": """SELECT order_id::text, channel, external_reference, state, version, total, cancelled_amount,
                     request ->> 'coupon' AS coupon, deadline_at,
                     (SELECT string_agg(sku || ' ' || units, ', ' ORDER BY sku COLLATE "C")
                      FROM (SELECT line ->> 'sku' AS sku, sum((line ->> 'quantity')::bigint
                              - coalesce((cancelled_lines ->> (line ->> 'line'))::bigint, 0)) AS units
                            FROM jsonb_array_elements(request -> 'lines') AS line GROUP BY 1) AS left_over
                      WHERE units > 0) AS goods,
                     deadline_at < now() - interval '60 s' AS overdue,
                     changed_at < now() - $1 * interval '1 s' AS settled FROM orders""",
        "ledger": "SELECT order_id::text, kind, currency, accounts, amounts FROM ledger",
        "rights": """SELECT right_ FROM unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS right_
                     WHERE has_table_privilege('ledger', right_)""",
        "parcels": """SELECT order_id::text, number, state, bookings, tracking, items, issued,
                      due_at < now() - interval '60 s' AS overdue FROM parcels""",
        "payments": """SELECT payment_id::text, order_id::text, provider, state, amount, captured, refunded,
                       due_at < now() - interval '60 s' AS overdue FROM payments""",
    },
    "inventory": {
        "levels": """SELECT s.sku, s.warehouse, s.on_hand, s.reserved,
                     (SELECT coalesce(sum(quantity), 0) FROM movements m
                      WHERE (m.sku, m.warehouse) = (s.sku, s.warehouse))::bigint AS moved,
                     (SELECT coalesce(sum(quantity), 0) FROM hold_lines h
                      WHERE (h.sku, h.warehouse) = (s.sku, s.warehouse))::bigint AS held FROM stock s""",
        "holds": """SELECT order_id::text, state, version,
                    (SELECT string_agg(sku || ' ' || units, ', ' ORDER BY sku COLLATE "C")
                     FROM (SELECT sku, sum(quantity) AS units FROM hold_lines l
                           WHERE l.order_id = h.order_id GROUP BY 1) AS held) AS goods FROM holds h""",
        "items": "SELECT sku, version, stock_version FROM items",
    },
    "customer": {
        "identifications": "SELECT order_id::text, state, version, points_held FROM identifications",
        "customers": """SELECT customer_id::text, version, points_balance, points_held,
                        (SELECT coalesce(sum(i.points_held), 0) FROM identifications i
                         WHERE i.customer_id = c.customer_id AND i.state = 'identified')::bigint AS held_for_orders,
                        (SELECT coalesce(sum(points), 0) FROM points_entries p
                         WHERE p.customer_id = c.customer_id)::bigint AS entered FROM customers c""",
    },
    "pricing": {
        "order_prices": "SELECT order_id::text, state, version, coupon FROM order_prices",
        "coupon_uses": "SELECT coupon, order_id::text, state FROM coupon_uses",
        "coupons": """SELECT code, used, (SELECT count(*) FROM coupon_uses u
                      WHERE u.coupon = c.code AND u.state = 'held') AS held FROM coupons c""",
        "quotes": "SELECT quote_id::text, order_id::text, state FROM quotes",
        "prices": "SELECT sku, version FROM price_versions",
    },
    "notify": {
        "care": "SELECT order_id::text, version FROM care_orders",
    },
}  # fmt: skip
KERNEL = {
    "outbox": "SELECT count(*) AS rows FROM outbox",
    "offsets": "SELECT * FROM consumer_offsets",
    "inbox": "SELECT consumer, count(*) AS events FROM inbox GROUP BY consumer",
}


@dataclass(frozen=True)
class Logged:
    """A record of Kafka, as far as invariants look at it."""

    topic: str
    partition: int
    offset: int
    key: str
    type: str
    id: str
    sequence: int
    day: str  # recorded, as in 2026-11-23


@dataclass
class Evidence:
    """``tables["order"]["orders"]`` are rows; ``acknowledged`` is what a client was told, (reference, order id)."""

    tables: dict[str, dict[str, Rows]]
    log: Sequence[Logged]
    provider_payments: Rows
    carrier_parcels: Rows = field(default_factory=list[dict[str, Any]])
    acknowledged: Sequence[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])

    def rows(self, service: str, table: str) -> Rows:
        return self.tables[service][table]


async def collect(
    platform: Platform, *, settled_seconds: float, acknowledged: Sequence[tuple[str, str, str]] = (),
    injected: Collection[str] = (),
) -> Evidence:  # fmt: skip
    """Read everything. Tables first: what they say has been said to Kafka, or waits in an outbox that is counted.

    ``injected`` are ids of records that no service wrote: somebody's poison, which no table answers for.
    """
    tables = await all_tables(platform, settled_seconds)
    records = await read_all(platform.stack.bootstrap_servers, DOMAIN_TOPICS)
    log = [one for record in records if (one := _logged(record)) is not None and one.id not in injected]
    return Evidence(
        tables, log, await platform.provider("payments", "/v1/payments"),
        await platform.provider("carrier", "/v1/parcels"), acknowledged,
    )  # fmt: skip


async def all_tables(platform: Platform, settled_seconds: float) -> dict[str, dict[str, Rows]]:
    """The tables of every service, by service and name; those of one service are of one instant."""
    return {
        service: await read_tables(
            platform.stack.database_url(service), {**QUERIES[service], **KERNEL}, settled_seconds=settled_seconds
        )
        for service in SERVICES
    }


async def read_tables(database_url: str, queries: Mapping[str, str], *, settled_seconds: float) -> dict[str, Rows]:
    """The rows of each query, all of one instant."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        await connection.set_type_codec("jsonb", encoder=orjson.dumps, decoder=orjson.loads, schema="pg_catalog")
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return {
                name: [
                    dict(row) for row in await connection.fetch(query, *([settled_seconds] if "$1" in query else []))
                ]
                for name, query in queries.items()
            }
    finally:
        await connection.close()


def _logged(record: Record) -> Logged | None:
    """A record that is one of our events; what is not goes to the dead letters and is nobody's version."""
    try:
        headers = {name: (value or b"").decode() for name, value in record.headers}
        return Logged(
            record.topic, record.partition, record.offset, (record.key or b"").decode(),
            headers["ce_type"].split(".")[-2], headers["ce_id"], int(headers["ce_sequence"]), headers["ce_time"][:10],
        )  # fmt: skip
    except (KeyError, IndexError, ValueError):
        return None
