"""What is left of a run that did not hold, for whoever looks for the reason: logs, and every table as CSV."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from bench.faults.watch import AWAY
from bench.platform import SERVICES, database
from deploy.local.stack import Stack

DIRECTORY = Path(".local/faults-broken")
TABLES = """
SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
AND NOT relispartition ORDER BY 1
"""


async def keep(stack: Stack, name: str) -> Path:
    """Copy what the stack has said and what it holds, as far as it answers; returns the directory."""
    kept = DIRECTORY / name
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(stack.log("order").parent, kept / "logs")
    for service in SERVICES:
        with contextlib.suppress(*AWAY):
            async with database(stack, service) as connection:
                for (table,) in await connection.fetch(TABLES):
                    query, output = f'SELECT * FROM "{table}"', kept / f"{service}.{table}.csv"
                    await connection.copy_from_query(query, output=output, format="csv", header=True)
    return kept
