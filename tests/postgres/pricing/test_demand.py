"""Of every window the best measurement is kept, for a time, and shown over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any

import httpx2
import pytest_asyncio
from prometheus_client import REGISTRY

from services.pricing import demand_store
from services.pricing.api import routes
from services.pricing.handlers import consumers
from shared.app import build_app
from shared.auth import Principal
from shared.events.pricing import DemandMeasured
from shared.health import Health
from shared.postgres import Database
from shared.topics import DEMAND
from tests.support.kernel import Fed, record, rows

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOW = timedelta(minutes=5)


def measured(
    units: int, sku: str = "RED-LAMP", window: int = 0, orders: int = 1, generation: int = 1
) -> DemandMeasured:
    start = NOON + window * WINDOW
    return DemandMeasured(
        occurred_at=start, sku=sku, window_start=start, window_end=start + WINDOW, units=units, orders=orders,
        generation=generation,
    )  # fmt: skip


def second(number: int) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=1) + timedelta(seconds=number)


async def learn(database: Database, *measurements: tuple[DemandMeasured, datetime]) -> None:
    """All of them in one batch, through the real loop."""
    (handle,) = [one.handle for one in consumers.subscriptions if one.name == "learn_demand"]
    fed = await Fed(database, handle, [DEMAND]).start()
    first = fed.loop._positions.at[DEMAND.name, 0]
    await fed.take(*(record(DEMAND, event, first + n, at=at) for n, (event, at) in enumerate(measurements)))


async def units(database: Database) -> dict[tuple[str, int], int]:
    found = await rows(database, "SELECT sku, window_start, units FROM demand")
    return {(row["sku"], (row["window_start"] - NOON) // WINDOW): row["units"] for row in found}


async def test_of_the_same_count_the_larger_measurement_of_a_window_holds(database: Database) -> None:
    await learn(database, (measured(3), second(1)), (measured(5), second(2)), (measured(8, window=1), second(3)))
    assert await units(database) == {("RED-LAMP", 0): 5, ("RED-LAMP", 1): 8}
    await learn(database, (measured(1), second(4)), (measured(2), second(5)))  # forgotten, and begun again from zero
    assert await units(database) == {("RED-LAMP", 0): 5, ("RED-LAMP", 1): 8}
    await learn(database, (measured(6), second(6)))
    assert await units(database) == {("RED-LAMP", 0): 6, ("RED-LAMP", 1): 8}


async def test_a_count_of_a_higher_generation_replaces_a_larger_one(database: Database) -> None:
    await learn(database, (measured(5), second(1)))
    await learn(database, (measured(2, generation=2), second(2)), (measured(9), second(3)))
    await learn(database, (measured(7), second(4)))
    assert await units(database) == {("RED-LAMP", 0): 2}


async def test_an_earlier_measurement_that_comes_late_changes_nothing(database: Database) -> None:
    await learn(database, (measured(5), second(2)))
    await learn(database, (measured(3), second(1)))
    await learn(database, (measured(9, window=1), second(5)), (measured(2, window=1), second(4)))
    assert await units(database) == {("RED-LAMP", 0): 5, ("RED-LAMP", 1): 9}


async def test_the_same_measurement_twice_is_the_same(database: Database) -> None:
    again = (measured(5), second(2))
    await learn(database, again, again)
    before = await rows(database, "SELECT * FROM demand")
    await learn(database, again)
    assert await rows(database, "SELECT * FROM demand") == before


async def test_measurements_of_the_same_number_are_no_gap_in_sequence(database: Database) -> None:
    await learn(database, *((measured(n), second(n)) for n in range(5)))
    assert not REGISTRY.get_sample_value("isthmus_sequence_gaps_total", {"consumer": "fed"})


async def test_windows_are_forgotten_a_month_after_they_were_last_measured(database: Database) -> None:
    old = datetime.now(UTC) - timedelta(days=demand_store.KEEP_DAYS)
    await learn(database, (measured(1), old - timedelta(hours=1)), (measured(2, window=1), old + timedelta(hours=1)))
    assert not await demand_store.forget(database)
    assert await units(database) == {("RED-LAMP", 1): 2}


# -- HTTP --


class Anyone:
    async def principal(self, _token: str) -> Principal:
        return Principal("tester", frozenset({"prices:read"}), time() + 60)


@pytest_asyncio.fixture
async def client(database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    app = build_app("pricing", routes(database), Health())
    app.state.authenticator = Anyone()
    transport = httpx2.ASGITransport(app=app)
    headers = {"Authorization": "Bearer x"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://pricing", headers=headers) as client:
        yield client


async def get(client: httpx2.AsyncClient, path: str, **params: Any) -> Any:
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_windows_are_listed_newest_first_page_by_page(client: httpx2.AsyncClient, database: Database) -> None:
    wanted = [measured(n, window=n) for n in range(3)] + [measured(9, sku="BLUE-CUP"), measured(1, sku="TOAD")]
    await learn(database, *((event, second(1)) for event in wanted))
    page = await get(client, "/demand", sku=["RED-LAMP", "BLUE-CUP"], limit=3)
    rest = await get(client, "/demand", sku=["RED-LAMP", "BLUE-CUP"], limit=3, cursor=page["next"])
    assert [(one["sku"], one["units"]) for one in page["items"] + rest["items"]] == [
        ("RED-LAMP", 2), ("RED-LAMP", 1), ("RED-LAMP", 0), ("BLUE-CUP", 9),
    ]  # fmt: skip
    assert rest["next"] is None


async def test_what_is_asked_for_now_is_compared_with_what_is_usual(
    client: httpx2.AsyncClient, database: Database
) -> None:
    for window, number in ((0, 10), (1, 10), (4, 20), (5, 10)):
        await learn(database, (measured(number, window=window), second(window)))
    at = NOON + 5 * WINDOW + WINDOW / 2
    now = await get(client, "/demand/RED-LAMP", at=at.isoformat(), windows=4)
    assert (now["current"]["units"], now["previous"]["units"]) == (10, 20)
    assert now["units_per_hour"] == 240  # 30 in the last 7.5 minutes
    assert now["usual_units_per_hour"] == 60  # 20 in the 20 minutes before
    assert now["trend"] == 4


async def test_where_nothing_is_asked_for_the_windows_are_empty(client: httpx2.AsyncClient, database: Database) -> None:
    await learn(database, (measured(10), second(1)))
    now = await get(client, "/demand/RED-LAMP")
    assert (now["current"]["units"], now["previous"]["units"], now["trend"]) == (0, 0, None)
    assert now["current"]["measured_at"] is None
    start, end = (datetime.fromisoformat(now["current"][side]) for side in ("window_start", "window_end"))
    assert start <= datetime.now(UTC) < end == start + WINDOW


async def test_what_nobody_asks_for_or_no_one_can_mean_is_refused(
    client: httpx2.AsyncClient, database: Database
) -> None:
    await learn(database, (measured(10), second(1)))
    assert (await client.get("/demand/TOAD")).status_code == 404
    assert (await client.get("/demand/RED-LAMP", params={"at": (NOON - WINDOW).isoformat()})).status_code == 404
    for path, params in (
        ("/demand", {}), ("/demand", {"sku": "RED-LAMP", "cursor": "!"}), ("/demand", {"sku": "\0"}),
        ("/demand/RED-LAMP", {"at": "9999-12-31T23:59:59Z"}),
        ("/demand/RED-LAMP", {"at": "9999-12-31T23:59:59-14:00"}),
        ("/demand/RED-LAMP", {"at": "0001-01-01T00:00:00+14:00"}), ("/demand/RED-LAMP", {"at": "2026-03-01T12:00:00"}),
        ("/demand/RED-LAMP", {"windows": 0}),
    ):  # fmt: skip
        assert (await client.get(path, params=params)).status_code == 422, (path, params)
