"""Answers to idempotency keys are kept for thirty days, and then forgotten without a long lock."""

from __future__ import annotations

from shared import idempotency
from shared.postgres import Database
from tests.support.kernel import rows, value

PORTION = 5000


async def answered(database: Database, number: int, age: str, subject: str) -> None:
    async with database.transaction() as tx:
        await tx.db.execute(
            """INSERT INTO idempotency_keys (subject, key, fingerprint, status, answer, created_at)
               SELECT $1, 'key ' || n, 'x', 200, '{}', now() - $2::text::interval FROM generate_series(1, $3) AS n""",
            subject, age, number,
        )  # fmt: skip


async def forget(database: Database) -> bool:
    async with database.transaction() as tx:
        return await idempotency.forget(tx)


async def test_answers_older_than_thirty_days_are_forgotten_in_portions(database: Database):
    await answered(database, 2 * PORTION + 1, "30 days 1 minute", "anna")
    await answered(database, 7, "29 days 23 hours", "berta")
    left: list[int] = []
    more = True
    while more:
        more = await forget(database)
        left.append(await value(database, "SELECT count(*) FROM idempotency_keys WHERE subject = 'anna'"))
    assert left == [PORTION + 1, 1, 0]
    assert not await forget(database)
    (kept,) = await rows(database, "SELECT subject, count(*) AS answers FROM idempotency_keys GROUP BY subject")
    assert tuple(kept) == ("berta", 7)


async def test_a_command_that_was_forgotten_counts_anew(database: Database):
    await answered(database, 1, "31 days", "anna")
    async with database.transaction() as tx:
        assert await idempotency.first_answer(tx, "anna", "key 1", b"x") == {}
    await forget(database)
    async with database.transaction() as tx:
        assert await idempotency.first_answer(tx, "anna", "key 1", b"another body") is None
