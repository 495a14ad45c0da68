"""A commit whose answer is lost: the client sees an error, and the rows are there."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from bench.faults.proxy import Proxies
from deploy.local.environment import spare_port
from shared.postgres import Connection
from tests.support.databases import Databases


@asynccontextmanager
async def through(databases: Databases) -> AsyncGenerator[tuple[Proxies, str, Connection]]:
    """Proxies, a database's address through one of them, and a connection that goes past it."""
    name = await databases.create("inventory")
    url = urlsplit(databases.url("inventory", name))
    assert url.port
    listen = spare_port()
    away = urlunsplit(url._replace(netloc=url.netloc.replace(f":{url.port}", f":{listen}")))
    async with Proxies({"db": (listen, url.port)}) as proxies:
        straight = await asyncpg.connect(url.geturl())
        try:
            await straight.execute("CREATE TABLE kept (number integer)")
            yield proxies, away, straight
        finally:
            await straight.close()
            await databases.drop(name)


async def keep(connection: Connection, number: int) -> None:
    async with connection.transaction():
        await connection.execute("INSERT INTO kept VALUES ($1)", number)
        await connection.fetch("SELECT repeat('x', 3000) FROM generate_series(1, 300)")  # answers of many segments


@pytest.mark.parametrize("connected", ["before", "after"])
async def test_a_lost_answer_is_an_error_and_the_row_is_there(databases: Databases, connected: str):
    async with through(databases) as (proxies, away, straight):
        if connected == "after":
            await proxies.drop_commit_replies("db", 1.0)
        connection = await asyncpg.connect(away)
        if connected == "before":
            await keep(connection, 0)
            await proxies.drop_commit_replies("db", 1.0)
        with pytest.raises((ConnectionError, asyncpg.PostgresConnectionError)):
            await keep(connection, 1)
        assert connection.is_closed()
        assert await straight.fetchval("SELECT count(*) FROM kept WHERE number = 1") == 1
        assert (await proxies.stats())["db"].dropped == 1


async def test_rolled_back_and_single_statements_are_answered(databases: Databases):
    async with through(databases) as (proxies, away, _):
        await proxies.drop_commit_replies("db", 1.0)
        connection = await asyncpg.connect(away)
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with connection.transaction():
                await connection.fetchval("SELECT 1 / 0")
        assert await connection.execute("INSERT INTO kept VALUES (7)") == "INSERT 0 1"
        await connection.close()
        assert (await proxies.stats())["db"].dropped == 0


async def test_some_are_lost_the_same_with_the_same_seed_and_none_at_a_rate_of_nothing(databases: Databases):
    async with through(databases) as (proxies, away, straight):
        rounds: list[list[int]] = []
        for rate in (0.3, 0.3, 0.0):
            await proxies.drop_commit_replies("db", rate, seed=11)
            lost: list[int] = []
            for number in range(20):
                connection = await asyncpg.connect(away)
                try:
                    await keep(connection, number)
                except (ConnectionError, asyncpg.PostgresConnectionError):
                    lost.append(number)
                else:
                    await connection.close()
            rounds.append(lost)
        assert rounds[0] == rounds[1]
        assert 0 < len(rounds[0]) < 20
        assert rounds[2] == []
        assert await straight.fetchval("SELECT count(*) FROM kept") == 60
        assert (await proxies.stats())["db"].dropped == 2 * len(rounds[0])
