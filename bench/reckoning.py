"""What a demo came to: orders, money, parcels, points and mails, each from where it is kept."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.platform import Platform, database

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 110  # a log has room

REACHED = """
SELECT t.order_id::text, t.recorded_at FROM timeline t JOIN orders o USING (order_id)
WHERE t.type = $2 AND o.state IN ('confirmed', 'closed') AND o.external_reference LIKE $1
"""
OUTCOMES = """
SELECT state, coalesce(reason, '') AS reason, count(*) AS orders, coalesce(sum(total - cancelled_amount), 0) AS worth
FROM orders WHERE external_reference LIKE $1 GROUP BY 1, 2 ORDER BY 3 DESC
"""
PARCELS = """
SELECT p.state, count(*) AS parcels, count(*) FILTER (WHERE p.late) AS late, coalesce(sum(p.price), 0) AS price
FROM parcels p JOIN orders o USING (order_id) WHERE o.external_reference LIKE $1 GROUP BY 1 ORDER BY 2 DESC
"""
POINTS = "SELECT kind, count(*) AS entries, sum(points) AS points FROM points_entries GROUP BY 1 ORDER BY 1"
TIERS = "SELECT tier, count(*) AS customers FROM customers WHERE NOT guest GROUP BY 1 ORDER BY 2 DESC"


@dataclass
class Run:
    """What the client saw: when it sent each order, and what it was told."""

    sent: dict[str, datetime] = field(default_factory=dict[str, datetime])  # by order id
    acknowledged: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    answers: Counter[int] = field(default_factory=Counter[int])
    different: list[str] = field(default_factory=list[str])  # repeated POSTs that found another order


async def show(platform: Platform, prefix: str, measured: Run, run: Run) -> None:
    """Print what became of the orders whose reference begins with ``prefix``, and of the platform's books."""
    like = f"{prefix}-%"
    await _orders(platform, like, measured, run)
    await _trial_balance(platform)
    await _parcels(platform, like)
    await _points(platform)
    await _mails(platform)


async def books_of(platform: Platform, order_id: str) -> None:
    """The journal of one order."""
    page = await platform.ask("order", "GET", "/ledger/journal", params={"order_id": order_id, "limit": 500})
    table = _table("\nIts books", "", "account", "debit", "credit")
    before = None
    for entry in page.json()["items"]:
        kind = entry["kind"] if entry["transaction_id"] != before else ""
        before = entry["transaction_id"]
        table.add_row(kind, entry["account"], *(_money(entry[side]) for side in ("debit", "credit")))
    console.print(table)


async def _orders(platform: Platform, like: str, measured: Run, run: Run) -> None:
    outcomes = await _rows(platform, "order", OUTCOMES, like)
    asked = await _rows(platform, "order", REACHED, like, "PaymentRequested")
    confirmed = await _rows(platform, "order", REACHED, like, "OrderConfirmed")
    table = Table(title="Orders by outcome", title_justify="left", show_edge=False)
    for column in ("state", "reason", "orders", "worth"):
        table.add_column(column, justify="right" if column in ("orders", "worth") else "left")
    for row in outcomes:
        worth = f"{row['worth']:,.2f} GBP" if row["state"] == "closed" else ""
        table.add_row(row["state"], row["reason"], f"{row['orders']:,}", worth)
    console.print("", table)
    console.print("\nThe undisturbed crowd, from POST to")
    parts = {"payment asked for (stock held, price known)": asked, "confirmed (the bank's time included)": confirmed}
    for what, rows in parts.items():
        took = [
            (row["recorded_at"] - measured.sent[row["order_id"]]).total_seconds() * 1000
            for row in rows
            if row["order_id"] in measured.sent
        ]
        if len(took) > 10:
            cuts = statistics.quantiles(took, n=100)
            console.print(f"  {what:<45} p50 {cuts[49]:5.0f} ms   p99 {cuts[98]:5.0f} ms   {len(took)} orders")
    console.print()
    console.print(f"HTTP answers: {dict(run.answers)}; orders sent twice that became two: {len(run.different)}\n")


async def _trial_balance(platform: Platform) -> None:
    balance = (await platform.ask("order", "GET", "/ledger/trial-balance")).json()
    for of in balance["currencies"]:
        table = _table(f"Trial balance, {of['currency']}", "account", "", "debit", "credit", "balance")
        for one in of["accounts"]:
            amounts = (_money(one[side]) for side in ("debit", "credit", "balance"))
            table.add_row(one["account"], one["type"], *amounts)
        difference = Decimal(of["debit"]) - Decimal(of["credit"])
        table.add_row("sum", "", _money(of["debit"]), _money(of["credit"]), f"{difference:,.2f}", style="bold")
        console.print(table, "")


async def _parcels(platform: Platform, like: str) -> None:
    table = _table("Parcels", "state", "parcels", "late", "price")
    for row in await _rows(platform, "order", PARCELS, like):
        table.add_row(row["state"], f"{row['parcels']:,}", f"{row['late']:,}", f"{row['price']:,.2f}")
    console.print(table, "")


async def _points(platform: Platform) -> None:
    table = _table("Points", "entries", "", "points")
    for row in await _rows(platform, "customer", POINTS):
        table.add_row(row["kind"], f"{row['entries']:,}", f"{row['points']:+,}")
    console.print(table)
    tiers = ", ".join(f"{row['tier']} {row['customers']:,}" for row in await _rows(platform, "customer", TIERS))
    console.print(f"Tiers: {tiers}\n")


async def _mails(platform: Platform) -> None:
    told: Counter[tuple[str, str, str]] = Counter()
    cursor: str | None = None
    while True:
        params = {"limit": 500, **({"cursor": cursor} if cursor else {})}
        page = (await platform.ask("notify", "GET", "/care", params=params)).json()
        told.update((one["trigger"], one["state"], one["failure"] or "") for one in page["items"])
        cursor = page["next"]
        if cursor is None:
            break
    table = _table("Mails", "occasion", "", "why not", "")
    for (trigger, state, failure), number in sorted(told.items()):
        table.add_row(trigger, "to be sent" if state == "triggered" else state, failure, f"{number:,}")
    console.print(table)
    if any(state == "triggered" for _, state, _ in told):
        console.print("What a killed process had claimed is sent when its claim has run out, within two minutes.")
    console.print()


async def _rows(platform: Platform, service: str, query: str, *arguments: Any) -> list[Any]:
    async with database(platform.stack, service) as connection:
        return await connection.fetch(query, *arguments)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False)
    for number, column in enumerate(columns):
        numeric = number > 0 and column in ("", "debit", "credit", "balance", "parcels", "late", "price", "points")
        table.add_column(column, justify="right" if numeric and column else "left")
    return table


def _money(amount: str) -> str:
    return f"{Decimal(amount):,.2f}" if Decimal(amount) else ""
