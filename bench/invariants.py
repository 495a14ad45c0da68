"""The invariants of the platform, judged on evidence: ``python -m bench.invariants`` after or during a run.

Each check is a function of the evidence alone, so that a test can plant a violation and see it caught.
*Local* ones hold at any instant; *settled* ones are judged on orders that rest.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench.books import i2_ledger, i3_money
from bench.evidence import Evidence, Rows, collect
from bench.finding import ENDED, RESTING, Finding
from bench.platform import Platform, PlatformError
from deploy.local.errors import StackError
from deploy.local.stack import DEFAULT
from shared.topics import CARE, CUSTOMERS, HOLDS, IDENTIFICATIONS, ITEMS, ORDERS, PRICES, QUOTES, STOCK

INBOX_DAYS = 6  # marks are kept for seven, counted from the day's end
ENDINGS = {"OrderRejected", "OrderCancelled", "OrderExpired", "OrderClosed"}


def i1_stock(evidence: Evidence) -> Finding:
    levels = evidence.rows("inventory", "levels")
    broken = [
        f"{row['sku']} in {row['warehouse']}: on hand {row['on_hand']} (moved {row['moved']}), "
        f"reserved {row['reserved']} (held {row['held']})"
        for row in levels
        if not (row["on_hand"] == row["moved"] and row["reserved"] == row["held"] and 0 <= row["held"] <= row["moved"])
    ]
    return Finding("I1", "stock: on hand = movements, reserved = holds, never oversold", len(levels), broken)


def i4_acknowledged(evidence: Evidence) -> Finding:
    orders = {row["order_id"]: row for row in evidence.rows("order", "orders")}
    references = Counter((row["channel"], row["external_reference"]) for row in orders.values())
    broken = [f"{channel} {reference}: {n} orders" for (channel, reference), n in references.items() if n > 1]
    for channel, reference, order_id in evidence.acknowledged:
        row = orders.get(order_id)
        if row is None or (row["channel"], row["external_reference"]) != (channel, reference):
            broken.append(f"{channel} {reference} was acknowledged as {order_id}, which is not there")
    checked = len(evidence.acknowledged) or len(orders)
    return Finding("I4", "every acknowledged order exists, once per reference", checked, broken)


def i5_process(evidence: Evidence) -> Finding:
    broken: list[str] = []
    orders = evidence.rows("order", "orders")
    holding = {row["order_id"]: row["goods"] for row in evidence.rows("inventory", "holds") if row["goods"]}
    points = {row["order_id"] for row in evidence.rows("customer", "identifications") if row["points_held"]}
    coupons = {row["order_id"] for row in evidence.rows("pricing", "coupon_uses") if row["state"] == "held"}
    quotes = {row["order_id"] for row in evidence.rows("pricing", "quotes") if row["state"] == "held"}
    unpaid = {row["order_id"] for row in evidence.rows("order", "payments") if row["overdue"]}
    parcels = _parcels(evidence)
    endings: dict[str, set[str]] = defaultdict(set)
    for record in evidence.log:
        if record.topic == ORDERS.name and record.type in ENDINGS:
            endings[record.key].add(record.id)
    for order in orders:
        id_, state = order["order_id"], order["state"]
        if state in ENDED:
            holders = {"stock": set(holding), "points": points, "a coupon": coupons, "a quote": quotes,
                       "a payment that nobody asks about": unpaid}  # fmt: skip
            kept = [what for what, ids in holders.items() if id_ in ids]
            if kept and order["settled"]:
                broken.append(f"order {id_} is {state} and still holds {', '.join(kept)}")
        if state in ENDED | {"closed"}:
            if order["settled"] and len(endings[id_]) != 1:
                broken.append(f"order {id_} is {state} and was ended {len(endings[id_])} times")
        elif state not in RESTING and (order["deadline_at"] is None or order["overdue"]):
            broken.append(f"order {id_} is {state} and stuck: deadline {order['deadline_at']}")
        elif endings[id_]:
            broken.append(f"order {id_} is {state} and was ended, too")
        if state in RESTING and order["settled"]:
            broken += _differs(order, parcels[id_], holding.get(id_))
            if order["coupon"] and id_ not in coupons:
                broken.append(f"order {id_} is {state} and no longer holds its coupon {order['coupon']}")
    broken += _sums_differ(evidence)
    statement = "an order ends once or has a deadline; ended it holds nothing, on its way all it should"
    return Finding("I5", statement, len(orders), broken)


def _parcels(evidence: Evidence) -> dict[str, Rows]:
    found: dict[str, Rows] = defaultdict(list)
    for row in evidence.rows("order", "parcels"):
        found[row["order_id"]].append(row)
    return found


def _differs(order: dict[str, Any], parcels: Rows, held: str | None) -> Iterable[str]:
    """What was not cancelled goes in parcels, what has not left is held, and nothing waits for ever."""
    id_, state = order["order_id"], order["state"]
    going = [one for one in parcels if one["state"] not in ("dropped", "refused", "lost")]
    if _goods(going) != order["goods"]:
        yield f"order {id_} is {state} for {order['goods']}, in its parcels {_goods(going)}"
    here = _goods([one for one in parcels if one["state"] in ("planned", "booking", "booked", "recalling")])
    if here != held:
        yield f"order {id_} is {state}, not shipped {here}, held {held}"
    yield from (f"order {id_}: parcel {one['number']} is {one['state']} and stuck" for one in parcels if one["overdue"])
    done = all(one["state"] in ("dropped", "refused", "lost", "delivered") for one in parcels)
    if (state == "closed") != done:
        yield f"order {id_} is {state}; parcels {[one['state'] for one in parcels]}"


def _goods(parcels: Rows) -> str | None:
    units: Counter[str] = Counter()
    for one in parcels:
        units.update(one["items"])
    return ", ".join(f"{sku} {units[sku]}" for sku in sorted(units) if units[sku]) or None


def _sums_differ(evidence: Evidence) -> Iterable[str]:
    """Counters beside what they count."""
    for row in evidence.rows("customer", "customers"):
        if (row["points_held"], row["points_balance"]) != (row["held_for_orders"], row["entered"]):
            told = f"balance {row['points_balance']}, held {row['points_held']}"
            counted = f"entered {row['entered']}, held by orders under way {row['held_for_orders']}"
            yield f"points of {row['customer_id']}: {told}; {counted}"
    for row in evidence.rows("pricing", "coupons"):
        if row["used"] != row["held"]:
            yield f"coupon {row['code']}: used {row['used']}, held by {row['held']} orders"


# Topic, service, table, key column, version column.
VERSIONS = (
    (ORDERS, "order", "orders", "order_id", "version"),
    (HOLDS, "inventory", "holds", "order_id", "version"),
    (STOCK, "inventory", "items", "sku", "stock_version"),
    (ITEMS, "inventory", "items", "sku", "version"),
    (IDENTIFICATIONS, "customer", "identifications", "order_id", "version"),
    (CUSTOMERS, "customer", "customers", "customer_id", "version"),
    (QUOTES, "pricing", "order_prices", "order_id", "version"),
    (PRICES, "pricing", "prices", "sku", "version"),
    (CARE, "notify", "care", "order_id", "version"),
)


def i6_log_is_tables(evidence: Evidence) -> Finding:
    broken: list[str] = []
    checked = 0
    last: dict[tuple[str, str], int] = defaultdict(int)
    for record in evidence.log:
        last[record.topic, record.key] = max(last[record.topic, record.key], record.sequence)
    for topic, service, table, key, version in VERSIONS:
        rows = {str(row[key]): row[version] for row in evidence.rows(service, table)}
        waiting = evidence.rows(service, "outbox")[0]["rows"]
        checked += len(rows)
        if waiting:  # not said yet; a settled platform has empty outboxes
            broken.append(f"{service}: {waiting} events wait in the outbox")
        for id_, number in rows.items():
            if last[topic.name, id_] != number:
                broken.append(f"{topic.name} {id_}: version {number}, in Kafka {last[topic.name, id_]}")
        logged = {id_ for name, id_ in last if name == topic.name and last[name, id_]}
        broken += [f"{topic.name} {id_}: in Kafka, but no row" for id_ in logged - rows.keys()]
    return Finding("I6", "every version is in Kafka, and nothing else is", checked, broken)


def i7_order(evidence: Evidence) -> Finding:
    broken: list[str] = []
    expected: dict[tuple[str, str], int] = defaultdict(lambda: 1)
    seen: set[tuple[str, str]] = set()
    for record in sorted(evidence.log, key=lambda one: (one.topic, one.partition, one.offset)):
        if (record.topic, record.id) in seen:
            continue  # the relay's own repeat
        seen.add((record.topic, record.id))
        entity = (record.topic, record.key)
        if record.sequence != expected[entity]:
            broken.append(f"{record.topic} {record.key}: sequence {record.sequence}, expected {expected[entity]}")
        expected[entity] = record.sequence + 1
    return Finding("I7", "per key, sequences 1..n without a gap", len(expected), broken)


def i8_effect(evidence: Evidence) -> Finding:
    broken: list[str] = []
    kept = (datetime.now(UTC) - timedelta(days=INBOX_DAYS)).date().isoformat()
    marks_dropped = any(record.day <= kept for record in evidence.log)  # an old stack: not every mark is there any more
    checked = 0
    for service, tables in evidence.tables.items():
        marked = {row["consumer"]: row["events"] for row in tables["inbox"]}
        applied: Counter[str] = Counter()
        for row in tables["offsets"]:
            applied[row["consumer"]] += row["applied"] + row["redriven"]
        for consumer, number in applied.items():
            checked += number
            if marked.get(consumer, 0) > number or (marked.get(consumer, 0) < number and not marks_dropped):
                broken.append(f"{service} {consumer}: {number} applied, {marked.get(consumer, 0)} marked")
    broken += _unanswered(evidence)
    return Finding("I8", "effect and mark together, once per consumer", checked, broken)


def _unanswered(evidence: Evidence) -> Iterable[str]:
    """Every order that a service has read has its one row, and so its one answer, there."""
    readers = (
        ("inventory", "hold_stock", "holds"), ("pricing", "price_orders", "order_prices"),
    )  # fmt: skip
    placed = [one for one in evidence.log if one.topic == ORDERS.name and one.type == "OrderPlaced"]
    for service, consumer, table in readers:
        rows = {row["order_id"] for row in evidence.rows(service, table)}
        read = {
            row["partition"]: row["next_offset"]
            for row in evidence.rows(service, "offsets")
            if row["consumer"] == consumer and row["topic"] == ORDERS.name
        }
        for order in placed:
            if order.offset < read.get(order.partition, 0) and order.key not in rows:
                yield f"{service} has read order {order.key} and has no row for it"


def i9_account(evidence: Evidence) -> Finding:
    broken: list[str] = []
    checked = 0
    for service, tables in evidence.tables.items():
        for row in tables["offsets"]:
            consumed = row["next_offset"] - row["start_offset"]
            accounted = row["applied"] + row["duplicate"] + row["skipped"] + row["dead_lettered"]
            checked += consumed
            if consumed != accounted:
                place = f"{row['topic']}/{row['partition']}"
                broken.append(f"{service} {row['consumer']} {place}: {consumed} consumed, {accounted} accounted for")
    return Finding("I9", "consumed = applied + duplicate + skipped + dead-lettered", checked, broken)


CHECKS: Sequence[Callable[[Evidence], Finding]] = (
    i1_stock, i2_ledger, i3_money, i4_acknowledged, i5_process, i6_log_is_tables, i7_order, i8_effect, i9_account,
)  # fmt: skip


def judge(evidence: Evidence) -> list[Finding]:
    return [check(evidence) for check in CHECKS]


async def check(
    platform: Platform, *, settled_seconds: float = 2.0, acknowledged: Sequence[tuple[str, str, str]] = (),
    injected: Collection[str] = (),
) -> list[Finding]:  # fmt: skip
    """Collect and judge; ``settled_seconds`` is how long an order must have rested to be judged as settled."""
    evidence = await collect(platform, settled_seconds=settled_seconds, acknowledged=acknowledged, injected=injected)
    return judge(evidence)


async def at_rest(
    platform: Platform, *, seconds: float = 30.0, settled_seconds: float = 2.0,
    acknowledged: Sequence[tuple[str, str, str]] = (), injected: Collection[str] = (),
) -> list[Finding]:  # fmt: skip
    """Judge until all hold, or for so many seconds: the last events are relayed, and the last refunds paid, later."""
    give_up = time.monotonic() + seconds
    while True:
        await asyncio.sleep(settled_seconds + 0.2)
        findings = await check(
            platform, settled_seconds=settled_seconds, acknowledged=acknowledged, injected=injected
        )  # fmt: skip
        if all(finding.held for finding in findings) or time.monotonic() > give_up:
            return findings


def show(findings: Iterable[Finding], console: Console) -> bool:
    """Print a table; returns whether all held."""
    table = Table(title="Invariants", title_justify="left", show_edge=False)
    for title, justify in (("", "left"), ("statement", "left"), ("checked", "right"), ("", "left")):
        table.add_column(title, justify=justify)  # pyright: ignore[reportArgumentType]
    held = True
    details: list[str] = []
    for finding in findings:
        held = held and finding.held
        verdict = "[green]held[/]" if finding.held else f"[red bold]BROKEN {len(finding.broken)} times[/]"
        table.add_row(finding.id, finding.statement, f"{finding.checked:,}", verdict)
        details += [f"  {finding.id}: {one}" for one in finding.broken[:10]]
    console.print(table)
    for line in details:
        console.print(line, style="red", highlight=False, markup=False)
    return held


async def _check(directory: Path) -> int:
    async with Platform.connect(directory) as platform:
        return 0 if show(await check(platform), Console()) else 1


def main(stack: Annotated[Path, typer.Option(help="directory of the running stack")] = DEFAULT) -> None:
    """Hold a running platform to its invariants."""
    try:
        sys.exit(asyncio.run(_check(stack)))
    except (PlatformError, StackError, OSError) as error:
        Console().print(f"[red]{error}[/]\nIs the stack up? See `make status`.")
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
