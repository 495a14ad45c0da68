"""kill -9 of the demand process while orders flow: within one window the signal is what an exact count says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest

from tests.flows.market import Market, until

SECONDS = 3  # of a window
RATE = 12.0  # orders a second
Counts = dict[tuple[str, datetime], tuple[int, int]]  # units and orders, by SKU and start of the window

ASKED_FOR = """
SELECT line ->> 'sku' AS sku, to_timestamp(floor(extract(epoch FROM placed_at) / $2) * $2) AS start,
       sum((line ->> 'quantity')::int) AS units, count(DISTINCT order_id) AS orders
FROM orders, jsonb_array_elements(request -> 'lines') AS line
WHERE line ->> 'sku' = ANY($1::text[]) GROUP BY 1, 2
"""

MEASURED = "SELECT sku, window_start AS start, units, orders FROM demand WHERE sku = ANY($1::text[])"


@pytest.fixture
async def short_windows(market: Market) -> AsyncGenerator[None]:
    await market.start(["demand"], demand={"ISTHMUS_DEMAND_WINDOW_SECONDS": str(SECONDS)})
    yield
    await market.start(["demand"])


async def exact(market: Market, *skus: str) -> Counts:
    """Counted from the orders themselves, as the order service has them."""
    rows = await market.rows("order", ASKED_FOR, skus, SECONDS)
    return {(row["sku"], row["start"]): (row["units"], row["orders"]) for row in rows}


async def told(market: Market, *skus: str) -> Counts:
    """What pricing has heard."""
    rows = await market.rows("pricing", MEASURED, skus)
    return {(row["sku"], row["start"]): (row["units"], row["orders"]) for row in rows}


def since(counts: Counts, start: datetime) -> Counts:
    return {window: count for window, count in counts.items() if window[1] >= start}


@pytest.mark.usefixtures("short_windows")
async def test_every_window_after_a_kill_is_what_an_exact_count_says(market: Market):
    lamp, cup = await market.lamps_and_cups(lamps=20, cups=500)  # of lamps too few: demand is what is asked for
    dice = random.Random(5)
    stop = asyncio.Event()

    async def shop() -> None:
        while not stop.is_set():
            await market.place(market.order((lamp, dice.randint(1, 3)), (cup, 1)))
            await asyncio.sleep(1 / RATE)

    async def something_is_told() -> bool:
        return len(await told(market, lamp, cup)) >= 4

    shopping = [asyncio.create_task(shop()) for _ in range(2)]
    try:
        await until("demand is measured", something_is_told, 30)
        await asyncio.to_thread(market.platform.stack.kill, "demand")
        await asyncio.to_thread(market.platform.stack.wait_ready, "demand", 60)
        ready = datetime.now(UTC)
        await asyncio.sleep(3 * SECONDS)
    finally:
        stop.set()
        await asyncio.gather(*shopping)

    async def agreed() -> bool:
        return since(await told(market, lamp, cup), ready) == since(await exact(market, lamp, cup), ready)

    await until("the windows after the kill are right", agreed, SECONDS)
    assert len(since(await exact(market, lamp, cup), ready)) >= 4

    # Not promised, and so it is: also the windows of the outage, counted late.
    async def all_agreed() -> bool:
        return await told(market, lamp, cup) == await exact(market, lamp, cup)

    await until("the windows before and during the outage are right", all_agreed, SECONDS)

    page = (await market.ask("pricing", "GET", "/demand", params={"sku": lamp, "limit": 2})).json()
    newest = [datetime.fromisoformat(one["window_start"]) for one in page["items"]]
    assert newest == sorted((start for sku, start in await exact(market, lamp) if sku == lamp), reverse=True)[:2]
    at = newest[0] + timedelta(seconds=SECONDS / 2)
    now = (await market.ask("pricing", "GET", f"/demand/{lamp}", params={"at": at.isoformat()})).json()
    assert now["current"]["units"] == page["items"][0]["units"]
    assert now["units_per_hour"] > 0
