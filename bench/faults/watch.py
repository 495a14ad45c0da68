"""Local invariants hold at any instant: they are judged again and again while a fault is on."""

from __future__ import annotations

import asyncio

import asyncpg

from bench.evidence import KERNEL, QUERIES, Evidence, Rows, read_tables
from bench.finding import Finding
from bench.invariants import i1_stock, i2_ledger, i8_effect, i9_account
from bench.platform import SERVICES, Platform, database
from deploy.local.errors import StackError

LOCAL = {"order": ("ledger", "rights"), "inventory": ("levels",)}
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, StackError)


async def local(platform: Platform) -> list[Finding]:
    """Judge I1, I2, I8 (marks) and I9 on every service's tables as they are now; raises one of ``AWAY``."""
    tables: dict[str, dict[str, Rows]] = {}
    for service in SERVICES:
        queries = {name: QUERIES[service][name] for name in LOCAL.get(service, ())} | dict(KERNEL)
        tables[service] = await read_tables(platform.stack.database_url(service), queries, settled_seconds=0)
    tables["inventory"].setdefault("holds", [])
    tables["pricing"].setdefault("order_prices", [])
    evidence = Evidence(tables, (), [])
    return [check(evidence) for check in (i1_stock, i2_ledger, i8_effect, i9_account)]


class Watch:
    """Judges every ``pause`` seconds until ``stop``; ``broken`` are the findings that were."""

    def __init__(self, platform: Platform, pause: float = 6.0):
        self._platform, self._pause = platform, pause
        self._stopping = asyncio.Event()
        self.samples = 0
        self.broken: list[Finding] = []

    async def run(self) -> None:
        while not self._stopping.is_set():
            try:
                findings = await asyncio.wait_for(local(self._platform), 30)
            except AWAY:
                pass  # a database is down: that is the fault
            else:
                self.samples += 1
                self.broken += [finding for finding in findings if not finding.held]
            try:
                await asyncio.wait_for(self._stopping.wait(), self._pause)
            except TimeoutError:
                continue

    def stop(self) -> None:
        self._stopping.set()


UNDER_WAY = {
    "order": {
        "orders": "SELECT count(*) FROM orders WHERE state IN ('placed', 'paying', 'confirmed')",
        "payments": "SELECT count(*) FROM payments WHERE due_at IS NOT NULL",
        "refunds": "SELECT count(*) FROM refunds WHERE due_at IS NOT NULL",
    },
}
MAILS = "SELECT count(*) FROM messages"
# Those that were tried in vain, again and again, wait for up to five minutes until the next try; those that a killed
# process had in its hands wait as long as the slowest mail server might take. Here it has two seconds for an answer.
HURRY = """
UPDATE messages SET due_at = now()
WHERE due_at > now() + interval '2 seconds' AND coalesce(handing_over_at < now() - interval '20 seconds', true)
"""


async def mails(platform: Platform, *, hurry: bool = False) -> int:
    """Mails whose outcome is not known yet; with ``hurry`` they do not wait for their next try."""
    async with database(platform.stack, "notify") as connection:
        if hurry:
            await connection.execute(HURRY)
        return await connection.fetchval(MAILS)


async def under_way(platform: Platform) -> dict[str, int]:
    """What has not come to its end: orders, payments, refunds, events in outboxes. Raises one of ``AWAY``."""
    waiting: dict[str, int] = {}
    for service in SERVICES:
        async with database(platform.stack, service) as connection:
            for what, query in {f"{service}.outbox": KERNEL["outbox"], **UNDER_WAY.get(service, {})}.items():
                waiting[what] = await connection.fetchval(query)
    return waiting
