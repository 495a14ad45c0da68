"""A migrated database for every test of notify."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from shared.postgres import Database
from tests.postgres.pricing import server


@pytest_asyncio.fixture(scope="session")
async def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with server.server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest_asyncio.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    async with server.migrated(postgres_url, "notify") as database:
        yield database


@pytest_asyncio.fixture(scope="module")
async def prepared(postgres_url: str) -> AsyncIterator[Database]:
    """One database for all tests of a module that change nothing."""
    async with server.migrated(postgres_url, "notify") as database:
        yield database
