"""Every statement fits the migrated schema."""

import pytest

from services.notify import store
from shared.postgres import Database

STATEMENTS = [
    pytest.param(value, id=f"{module.__name__}.{name}")
    for module in (store,)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
]


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_statement_fits_the_schema(prepared: Database, statement: str) -> None:
    async with prepared.reading() as db:
        await db.prepare(statement)
