"""The state of the platform as a digest per table, to be compared byte for byte."""

from __future__ import annotations

from bench.platform import SERVICES, database
from deploy.local.stack import Stack

# What says how far somebody has read, sent or looked, rather than what is so.
BOOKKEEPING = ("consumer_offsets", "relayed", "reconciliation_walks", "payments_seen")
TABLES = """
SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
AND NOT relispartition AND relname <> ALL($1) ORDER BY 1
"""


async def digests(stack: Stack) -> dict[str, str]:
    """By service and table: how many rows, and the MD5 of their text in order."""
    found: dict[str, str] = {}
    for service in SERVICES:
        async with database(stack, service) as connection:
            for (table,) in await connection.fetch(TABLES, BOOKKEEPING):
                found[f"{service}.{table}"] = await connection.fetchval(
                    f"""SELECT count(*) || ' ' || coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))), '')
                        FROM "{table}" AS t"""
                )
    return found


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [
        f"{table}: {before.get(table)} before, {after.get(table)} after"
        for table in sorted(before.keys() | after.keys())
        if before.get(table) != after.get(table)
    ]
