"""Every SQL constant is understood by the migrated schema."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from services.customer import commands, profiles, sealing_keys, store

if TYPE_CHECKING:
    from shared.postgres import Database

MODULES: list[ModuleType] = [store, profiles, commands, sealing_keys]
CONSTANTS = [
    pytest.param(value, id=f"{module.__name__.rsplit('.', 1)[-1]}.{name}")
    for module in MODULES
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
]


@pytest.mark.parametrize("sql", CONSTANTS)
async def test_it_is_understood(database: Database, sql: str) -> None:
    async with database.reading() as db:
        await db.prepare(sql)


@pytest.mark.parametrize("table", ["points_entries", "consents", "accesses"])
async def test_histories_are_only_added_to(database: Database, table: str) -> None:
    async with database.reading() as db:
        for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}", f"UPDATE {table} SET recorded_at = now()"):
            with pytest.raises(Exception, match="added, never changed"):
                await db.execute(statement)
