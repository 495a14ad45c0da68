"""A flash sale: one SKU with 500 units, and 10,000 buyers who want one of them at the same moment.

Exactly 500 may be confirmed, and everybody must know within 15 s of the start. Apart from that, how fast inventory
decides: it is stopped while as many orders are placed again, and then started; its answers are timed in Kafka.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench.perf import figures, watcher
from bench.perf.child import child
from bench.perf.measuring import lengths
from bench.perf.orders import HOUSE, ROWS
from bench.perf.results import Result, at_least, at_most, exactly, plain
from bench.perf.stage import ENV, Stage, Trial
from bench.platform import SERVICES, database
from shared.topics import HOLDS

UNITS, BUYERS = 500, 10_000
SOON = 15.0  # seconds
DECISIONS = frozenset({"StockHeld", "StockRefused"})
SALE, NEXT_SALE = "flash-lamp", "next-lamp"
BEGUN = "SELECT extract(epoch FROM min(seen_at))::float FROM holds WHERE order_id = ANY($1::uuid[])"
PLACED = "SELECT count(*) FROM orders WHERE external_reference LIKE $1 || '-%'"


async def run(stage: Stage, result: Result) -> None:
    await stage.prepare(customers=50)
    buyers = BUYERS // 20 if stage.quick else BUYERS
    units = UNITS // 20 if stage.quick else UNITS
    for sku in (SALE, NEXT_SALE):
        await _offer(stage, sku, units)
    sale = await _sale(stage, buyers)
    confirmed = len(sale.confirmed())
    told = [at - sale.start for _, at in sale.ended.values()]
    accepted = sum(order_id is not None for order_id in sale.sent.order_ids)
    last = max(told, default=float("inf")) if len(told) == buyers else float("inf")
    decisions = await _queued(stage, buyers)
    result.goals += [
        exactly("confirmed", units, confirmed, "orders"),
        at_most("everybody answered", SOON, last if last != float("inf") else 9999.0, "s from the start"),
        at_least("decisions in inventory, over queued orders", 5000, decisions, "decisions/s"),
    ]
    if confirmed != units:
        result.broken.append(f"{confirmed} of {units} units were sold")
    if accepted < buyers:
        result.notes.append(f"{buyers - accepted} buyers got no order: {sale.sent.refused}")
    result.facts |= {
        "buyers": buyers, "units": units, "confirmed": confirmed, "accepted": accepted,
        "refused": sale.sent.refused, "told_s": figures.summary(told), "decisions_per_s": decisions,
        "posts_answered_s": round(max(sale.sent.answered) - sale.start, 2),
        "client": {"cpu_s": round(sale.sent.cpu, 2), "sent_again": sale.sent.again},
    }  # fmt: skip
    row: list[Any] = [f"{buyers:,} buyers", accepted, confirmed, len(told) - confirmed,
                      result.facts["posts_answered_s"], round(last, 2), round(decisions)]  # fmt: skip
    result.tables.append(
        plain("Flash sale", ("", "accepted", "confirmed", "rejected", "POSTs answered s", "all told s", "decisions/s"),
              [row])
    )  # fmt: skip


async def _offer(stage: Stage, sku: str, units: int) -> None:
    platform = stage.platform
    await platform.catalogue(
        [{"sku": sku, "name": sku, "category": "things", "weight": 500}], warehouses=[HOUSE], key=sku,
        receipts=[{"sku": sku, "warehouse": HOUSE["code"], "quantity": units, "unit_cost": "2.00", "currency": "GBP"}],
    )  # fmt: skip
    await platform.prices("main", "GBP", {sku: "4.90"}, key=sku)
    await asyncio.sleep(2)  # until the order service has heard of it


async def _sale(stage: Stage, buyers: int) -> Trial:
    stage.say(f"{buyers:,} buyers at once")
    warm = lengths(stage).warm
    await stage.run(stage.load(rate=20, seconds=warm))
    trial = await stage.run(stage.load(number=buyers, customers=(), sku=SALE, connections=150, patience=90.0))
    stage.say(f"  all told after {max((at for _, at in trial.ended.values()), default=0) - trial.start:.1f} s")
    return trial


async def _queued(stage: Stage, buyers: int) -> float:
    """Decisions a second of an inventory that finds so many orders in its topic.

    From the start of its first transaction until a subscriber has read the last decision.
    """
    stage.say("the same, while inventory stands still")
    await asyncio.to_thread(stage.stack.stop, "inventory")
    load = stage.load(number=buyers, customers=(), sku=NEXT_SALE, rows=ROWS, connections=4)
    async with child(watcher.main, stage.stack.bootstrap_servers, {HOLDS.name: DECISIONS}) as decided:
        await decided.answer()
        running = asyncio.create_task(stage.run(load))
        await _placed(stage, load.name, buyers)
        await asyncio.to_thread(stage.stack.up, SERVICES, env=ENV)
        orders = set((await running).sent.order_ids)
        seen, _ = await decided.ask("what have you seen?")
    times = [at for order_id, _, at in seen if order_id in orders]
    async with database(stage.stack, "inventory") as connection:
        begun: float = await connection.fetchval(BEGUN, list(orders - {None}))
    begun += time.monotonic() - time.time()  # from the wall's clock
    rate = len(times) / (max(times) - begun)
    stage.say(f"  {len(times):,} decisions, {rate:,.0f}/s")
    return round(rate, 1)


async def _placed(stage: Stage, name: str, orders: int) -> None:
    """Wait until all are there, and in Kafka."""
    until = time.monotonic() + 90
    async with database(stage.stack, "order") as connection:
        while time.monotonic() < until:
            waiting = await connection.fetchval("SELECT count(*) FROM outbox")
            if await connection.fetchval(PLACED, name) >= orders and not waiting:
                return
            await asyncio.sleep(0.5)
    raise TimeoutError(f"not all of {orders} orders were placed within 90 s")
