"""Points of orders under way move into the ledger when a database of the first release is brought up to date."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from shared.migrate import migrate
from tests.support.databases import Databases

MIGRATIONS = Path(__file__).resolve().parents[3] / "services" / "customer" / "migrations"
ALICE, BOB, LAMPS, CUPS, JARS = (UUID(int=number) for number in range(1, 6))
BEFORE = f"""
INSERT INTO customers (customer_id, version, channel, tier, guest, points_balance, points_held, data_key, registered_at)
VALUES ('{ALICE}', 2, 'store', 'gold', false, 500, 350, '', now()),
       ('{BOB}', 1, 'store', 'base', false, 70, 0, '', now());
INSERT INTO points_entries (entry_id, customer_id, points, kind, reason, actor, occurred_at, recorded_at)
VALUES (gen_random_uuid(), '{ALICE}', 600, 'goodwill', 'x', 'clerk', '2010-01-01Z', '2026-01-01Z'),
       (gen_random_uuid(), '{ALICE}', -100, 'goodwill', 'x', 'clerk', '2010-01-02Z', '2026-01-02Z'),
       (gen_random_uuid(), '{BOB}', 70, 'goodwill', 'x', 'clerk', '2010-01-01Z', '2026-01-01Z');
INSERT INTO identifications (order_id, state, version, customer_id, points_held, occurred_at)
VALUES ('{LAMPS}', 'identified', 1, '{ALICE}', 300, '2010-02-01Z'),
       ('{CUPS}', 'identified', 1, '{ALICE}', 50, '2010-02-02Z'),
       ('{JARS}', 'ended', 2, '{BOB}', 0, '2010-02-03Z');
"""


@pytest.fixture
async def url(databases: Databases, tmp_path: Path) -> AsyncGenerator[str]:
    """A database of the first release, with points held."""
    first = tmp_path / "migrations"
    first.mkdir()
    shutil.copy(MIGRATIONS / "001_customers.sql", first)
    name = f"test_customer_{uuid4().hex[:12]}"
    await databases._admin.execute(f'CREATE DATABASE "{name}" OWNER customer')
    url = databases.url("customer", name)
    await migrate(url, first)
    await run(url, BEFORE)
    yield url
    await databases.drop(name)


async def run(url: str, sql: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url)
    try:
        if not sql.startswith("SELECT"):
            await connection.execute(sql)
            return []
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def test_what_orders_hold_is_taken_off_the_balance_with_an_entry_each(url: str) -> None:
    assert "service/002_points_ledger.sql" in await migrate(url, MIGRATIONS)
    assert await migrate(url, MIGRATIONS) == []
    assert await run(url, "SELECT customer_id, points_balance, points_held FROM customers ORDER BY 1") == [
        (ALICE, 150, 350), (BOB, 70, 0),
    ]  # fmt: skip
    assert await run(url, "SELECT customer_id, sum(points)::int FROM points_entries GROUP BY 1 ORDER BY 1") == [
        (ALICE, 150), (BOB, 70),
    ]  # fmt: skip
    assert await run(
        url, "SELECT points, kind, order_id, reason, actor FROM points_entries WHERE kind <> 'goodwill' ORDER BY number"
    ) == [(-300, "redeemed", LAMPS, None, None), (-50, "redeemed", CUPS, None, None)]  # fmt: skip


async def test_a_tier_that_somebody_put_stays_pinned(url: str) -> None:
    await migrate(url, MIGRATIONS)
    assert await run(url, "SELECT tier, tier_pinned FROM customers ORDER BY customer_id") == [
        ("gold", True), ("base", False),
    ]  # fmt: skip


async def test_the_ledger_stays_one_that_is_only_added_to(url: str) -> None:
    await migrate(url, MIGRATIONS)
    for statement in ("UPDATE points_entries SET points = 1", "DELETE FROM points_entries", "TRUNCATE points_entries"):
        with pytest.raises(asyncpg.RaiseError):
            await run(url, statement)
