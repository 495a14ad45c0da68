"""Inventory's server breaks: an old backup is refused, and the documented way back loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bench.platform import Platform
from deploy.local.errors import StackError
from deploy.local.stack import Stack
from deploy.local.supervisor import ROOT
from shared.kafka import Place, bounds
from shared.past import BEHIND, topics_of
from tests.flows.market import ENVIRONMENT, Market
from tests.support.own_postgres import OwnPostgres, commands

PATIENT = {**ENVIRONMENT, "order": {**ENVIRONMENT["order"], "ISTHMUS_ANSWER_DEADLINE": "300"}}
DIRECTORY = ROOT / ".local" / "restored"


@pytest.fixture
def server() -> Generator[OwnPostgres]:
    """Inventory's own Postgres, beside the stack's."""
    directory = Path(f"{DIRECTORY}-inventory")
    shutil.rmtree(directory, ignore_errors=True)
    server = OwnPostgres(directory, "inventory")
    yield server
    server.end()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def market(server: OwnPostgres, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Market]:
    monkeypatch.setenv("INVENTORY_DATABASE_URL", server.url)
    stack = Stack(DIRECTORY)
    stack.clean()
    try:
        await asyncio.to_thread(stack.up, env=PATIENT)
        async with Platform.connect(stack.directory) as platform:
            market = Market(platform)
            await market.open()
            yield market
            await market.close()
    finally:
        stack.clean()


async def inventory(stack: Stack, *arguments: str) -> tuple[int | None, list[dict[str, Any]], str]:
    """Run it by hand, until it ends: exit code, what it printed, what it logged."""
    env = {**os.environ, **stack.env("inventory")}
    command = [sys.executable, "-m", "services.inventory", *arguments]
    process = await asyncio.create_subprocess_exec(*command, env=env, cwd=ROOT, stdout=PIPE, stderr=PIPE)
    try:
        printed, logged = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, [json.loads(line) for line in printed.splitlines()], logged.decode()


async def traces(stack: Stack) -> tuple[list[Any], dict[Place, tuple[int, int]]]:
    """What consuming or publishing would change."""
    connection = await asyncpg.connect(stack.database_url("inventory"))
    try:
        kept = await connection.fetch(
            """SELECT consumer, topic, partition, next_offset FROM consumer_offsets
               UNION ALL SELECT 'outbox', '', 0, count(*) FROM outbox ORDER BY 1, 2, 3"""
        )
    finally:
        await connection.close()
    return [tuple(row) for row in kept], await bounds(stack.bootstrap_servers, topics_of("inventory"))


@pytest.mark.long  # a second whole stack; tests/postgres/shared/test_restoring.py does the same with one service
async def test_an_old_backup_is_refused_and_the_way_back_loses_nothing(market: Market, server: OwnPostgres):
    stack = market.platform.stack
    lamp, cup = await market.lamps_and_cups()
    for _ in range(3):
        assert (await market.buy((lamp, 1), (cup, 2)))["state"] == "confirmed"
    for block in commands("Take a base backup"):
        server.run(block)
    after = [await market.buy((lamp, 1), (cup, 2)) for _ in range(3)]
    assert [order["state"] for order in after] == ["confirmed"] * 3

    # The server breaks, and somebody starts it on the backup alone.
    server.kill()
    await asyncio.to_thread(stack.stop, "inventory")
    server.data.rename(server.lost)
    server.run('cp -a "$BACKUP" "$PGDATA"')
    server.start()
    meanwhile = await market.place(market.order((lamp, 1)))
    before = await traces(stack)

    code, _, logged = await inventory(stack)
    assert code == BEHIND
    errors = [line for line in logged.splitlines() if '"level": "error"' in line]
    assert len(errors) == 1
    assert "the database of inventory is behind its own past" in errors[0]
    assert "docs/how-to/restore.md" in errors[0]
    with pytest.raises(StackError, match=r"inventory refuses to start: .* docs/how-to/restore\.md"):
        await market.start(["inventory"])
    await asyncio.to_thread(stack.stop, "inventory")
    code, missing, said = await inventory(stack, "past")
    assert (code, "BEHIND" in said) == (BEHIND, True)
    held = [event["key"] for event in missing if event["type"] == "isthmus.inventory.StockHeld.v1"]
    assert set(held) == {order["order_id"] for order in after}
    assert await traces(stack) == before

    # The documented way back; its step 5 is ours to run, with the service's environment.
    *restoring, asking = commands("Restore one service")
    for block in restoring:
        server.run(block)
    assert asking.split() == ["python", "-m", "services.inventory", "past"]
    code, missing, said = await inventory(stack, "past")
    assert (code, missing) == (0, [])
    assert "in order" in said
    await market.start(["inventory"])
    assert (await market.outcome(meanwhile))["state"] == "confirmed"
    assert (await market.buy((lamp, 1), (cup, 2)))["state"] == "confirmed"
    assert (await market.available(lamp), await market.available(cup)) == (92, 86)
    await market.holds_all_invariants()
