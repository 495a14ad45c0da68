"""How soon a change in one service is visible in every other that keeps a copy, while orders come in.

A change is sent by HTTP to its owner when it is due, and its time runs from then until the copy is seen in the other
service's table (looked at every 20 ms). Nobody keeps a copy of prices: there it ends when a subscriber has read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.perf import figures, watcher
from bench.perf.child import child
from bench.perf.measuring import bounded, facts, lengths, run_table
from bench.perf.orders import HOUSE
from bench.perf.picture import lines
from bench.perf.results import Result, at_most, plain, read
from bench.perf.stage import Stage
from bench.platform import database
from shared.topics import PRICES

WANTED = 500.0  # orders a second, meanwhile
SHARE = 0.7  # of the top rate, where that is less
GOAL = 1000.0  # milliseconds
PACE = 5.0  # changes a second of each kind
LOOK = 0.02  # seconds between two looks at a copy
TIER = "gold"


@dataclass
class Copy:
    """Where a change is to be seen; the query finds those of the keys $1 whose change has come."""

    name: str
    service: str
    query: str
    kind: str
    waiting: dict[str, float] = field(default_factory=dict[str, float])  # since when
    took: list[float] = field(default_factory=list[float])


def copies() -> list[Copy]:
    return [
        Copy("product, in order", "order", "SELECT sku FROM known_items WHERE sku = ANY($1) AND version > 1", "item"),
        Copy("product, in pricing", "pricing", "SELECT sku FROM items WHERE sku = ANY($1) AND version > 1", "item"),
        Copy("product, in notify", "notify", "SELECT sku FROM products WHERE sku = ANY($1) AND item_version > 1",
             "item"),
        Copy("stock, in notify", "notify", "SELECT sku FROM products WHERE sku = ANY($1) AND available > 0", "stock"),
        Copy("tier, in pricing", "pricing",
             f"SELECT customer_id::text FROM tiers WHERE customer_id = ANY($1::uuid[]) AND tier = '{TIER}'", "tier"),
    ]  # fmt: skip


async def run(stage: Stage, result: Result) -> None:
    await stage.prepare()
    rate = _rate(stage, result)
    long = lengths(stage)
    number = min(len(stage.customers), round(long.measured * PACE))
    skus = [f"sync-{one:04}" for one in range(number)]
    await stage.platform.catalogue([_item(sku, "standard") for sku in skus], warehouses=[], receipts=[], key="sync")
    await asyncio.sleep(3)
    seen = copies()
    load = stage.load(rate=rate, seconds=long.warm + long.measured + 1)
    prices: dict[str, float] = {}
    async with child(watcher.main, stage.stack.bootstrap_servers, {PRICES.name: frozenset({"PriceChanged"})}) as told:
        await told.answer()
        running = asyncio.create_task(stage.run(load, warm=long.warm))
        await asyncio.sleep(long.warm + 1)
        await _change(stage, skus, seen, prices)
        trial = await running
        read_at = {key: at for key, _, at in (await told.ask("what have you seen?"))[0]}
    took = {copy.name: copy.took for copy in seen}
    took["price, by a subscriber"] = [read_at[sku] - since for sku, since in prices.items() if sku in read_at]
    for name, seconds in took.items():
        result.goals.append(at_most(f"{name}: p99", GOAL, figures.summary(seconds)["p99"], "ms"))
        if len(seconds) < number:
            result.broken.append(f"{name}: {number - len(seconds)} of {number} changes were never seen")
    if not bounded(trial)[0]:
        result.notes.append(f"At {rate:g} orders/s the lag was not bounded.")
    result.facts |= {"changes_of_each_kind": number, "load": facts(trial),
                     "seen_ms": {name: figures.summary(seconds) for name, seconds in took.items()}}  # fmt: skip
    rows = [(name, *figures.summary(seconds).values()) for name, seconds in took.items()]
    result.tables += [plain("Change to visible", ("", "p50 ms", "p90 ms", "p99 ms", "max ms", "changes"), rows),
                      run_table("Load", {"orders": result.facts["load"]})]  # fmt: skip
    result.pictures["sync.svg"] = lines(
        "Change to visible: share of the changes that took at most so long", "ms", "% of changes",
        {name: [(figures.quantile(sorted(one), share / 100) * 1000, share) for share in range(1, 101)]
         for name, one in took.items() if one}, logarithmic=True,
    )  # fmt: skip


def _rate(stage: Stage, result: Result) -> float:
    if stage.quick:
        return 50.0
    kept = read(result.folder, "throughput")
    top: float = kept["kinds"]["single"]["confirmed_per_s"] if kept else WANTED
    if SHARE * top < WANTED:
        result.notes.append(f"Measured at {SHARE * top:.0f} orders/s: the top rate was {top:g}/s, not more.")
    return min(WANTED, SHARE * top)


async def _change(stage: Stage, skus: list[str], seen: list[Copy], prices: dict[str, float]) -> None:
    """Send a change of each kind to a thing of its own, at a steady pace, and wait until all copies have them."""
    looking = [asyncio.create_task(_look(stage, copy)) for copy in seen]
    began = time.monotonic()
    try:
        async with asyncio.TaskGroup() as group:
            for number, (sku, customer) in enumerate(zip(skus, stage.customers, strict=False)):
                due = began + number / PACE
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                prices[sku] = due
                for copy in seen:
                    copy.waiting[customer if copy.kind == "tier" else sku] = due
                for change in _changes(stage, sku, customer).values():
                    group.create_task(change())
        for _ in range(300):
            if not any(copy.waiting for copy in seen):
                break
            await asyncio.sleep(0.1)
    finally:
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)


def _changes(stage: Stage, sku: str, customer: str) -> Mapping[str, Callable[[], Coroutine[Any, Any, Any]]]:
    ask = stage.platform.ask
    receipt = {"sku": sku, "warehouse": HOUSE["code"], "quantity": 7, "unit_cost": "2.00", "currency": "GBP"}
    price = {"price_list": "main", "lines": [{"sku": sku, "unit_price": "5.10"}]}
    return {
        "item": lambda: ask("inventory", "POST", "/items", json={"items": [_item(sku, "reduced")]}),
        "stock": lambda: ask("inventory", "POST", "/stock/receipts", json={"lines": [receipt]}, key=f"sync/{sku}"),
        "tier": lambda: ask("customer", "PUT", f"/customers/{customer}/tier", json={"tier": TIER}),
        "price": lambda: ask("pricing", "POST", "/prices", json=price, key=f"sync/{sku}"),
    }


async def _look(stage: Stage, copy: Copy) -> None:
    async with contextlib.AsyncExitStack() as opened:
        connection = await opened.enter_async_context(database(stage.stack, copy.service))
        while True:
            if copy.waiting:
                found = await connection.fetch(copy.query, list(copy.waiting))
                now = time.monotonic()
                copy.took += [now - copy.waiting.pop(row[0]) for row in found]
            await asyncio.sleep(LOOK)


def _item(sku: str, tax_class: str) -> dict[str, Any]:
    return {"sku": sku, "name": sku, "category": "things", "weight": 500, "tax_class": tax_class}
