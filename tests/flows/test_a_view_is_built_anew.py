"""Every view of every service, built anew beside the running service, holds what it held before."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from shared.contracts.services import all_parts
from shared.views import View
from tests.flows.market import Market, journey

ROOT = Path(__file__).resolve().parents[2]
VIEWS = {name: parts.all_views for name, parts in all_parts().items() if parts.all_views}


async def build(market: Market, service: str, *arguments: str) -> str:
    """What ``python -m services.<service> rebuild ...`` prints."""
    told = {**os.environ, **market.platform.stack.env(service)}
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"services.{service}", "rebuild", *arguments, env=told, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, error = await asyncio.wait_for(run.communicate(), 60)
    assert run.returncode == 0, f"{out.decode()}\n{error.decode()}"
    return out.decode()


async def content(market: Market, service: str, view: View) -> dict[str, list[tuple[Any, ...]]]:
    """What the tables hold. A step of a timeline comes back with the time at which its transaction began, some
    milliseconds before the one that it was written down with first."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for table in view.tables:
        rows = await market.rows(service, f"SELECT * FROM {table}")
        left_out = {"recorded_at"} if table == "timeline" else set[str]()
        dicts = [{name: value for name, value in row.items() if name not in left_out} for row in rows]
        found[table] = sorted(tuple(map(str, one.values())) for one in dicts)
        assert found[table]
    return found


async def test_every_view_comes_back_as_it_was(market: Market):
    assert {service: [view.name for view in views] for service, views in VIEWS.items()} == {
        "order": ["note_care", "learn_items", "timeline"],
        "pricing": ["learn_tiers", "learn_tax_classes"],
        "notify": ["learn_products"],
    }
    lamp, _ = await market.lamps_and_cups()
    order_id = await market.place(market.order((lamp, 1)))
    assert (await market.outcome(order_id))["state"] == "confirmed"
    await market.holds_all_invariants()  # nothing moves any more
    for service, views in VIEWS.items():
        before = [await content(market, service, view) for view in views]
        for table in (table for view in views for table in view.tables):
            await market.rows(service, f"DELETE FROM {table}")
        told = await build(market, service, *(view.name for view in views))
        assert told.count(": rebuilt from ") == len(views)
        assert [await content(market, service, view) for view in views] == before
    assert journey(await market.look(order_id))[:2] == ["OrderPlaced", "PaymentRequested"]
    assert (await market.outcome(await market.place(market.order((lamp, 1)))))["state"] == "confirmed"
    assert (await build(market, "pricing")).splitlines()[0].startswith("learn_tiers: tiers, from isthmus.customer.")
