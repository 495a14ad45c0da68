"""Idempotency keys: the same command, sent again, finds its first answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel

from shared.postgres import Tx
from shared.problems import Problem

CLAIM = """
INSERT INTO idempotency_keys (subject, key, fingerprint, status, answer) VALUES ($1, $2, $3, 0, '{}')
ON CONFLICT DO NOTHING RETURNING true
"""
ANSWERED = "SELECT fingerprint, answer FROM idempotency_keys WHERE subject = $1 AND key = $2"
ANSWER = "UPDATE idempotency_keys SET status = $3, answer = $4 WHERE subject = $1 AND key = $2"
FORGET = """
DELETE FROM idempotency_keys WHERE (subject, key) IN
    (SELECT subject, key FROM idempotency_keys WHERE created_at < now() - interval '30 days' LIMIT 5000)
"""


def fingerprint(body: BaseModel) -> bytes:
    """SHA-256 of the body's canonical form. For bodies without personal data only: see the order service for others."""
    return hashlib.sha256(orjson.dumps(body.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)).digest()


async def first_answer(tx: Tx, subject: str, key: str | None, body: bytes) -> Mapping[str, Any] | None:
    """The answer this key was given before, or None if the command is new; a concurrent twin waits for the first.

    Raises 409 when the key came with another body. ``body`` is a fingerprint.
    """
    if key is None:
        return None
    if await tx.db.fetchval(CLAIM, subject, key, body):
        return None
    row = await tx.db.fetchrow(ANSWERED, subject, key)
    assert row is not None
    if row["fingerprint"] != body:
        raise Problem(
            409, "Idempotency key reused", "this key came with another body before; use a new one",
            code="idempotency_key_reused", errors=[{"field": "Idempotency-Key", "message": "used with another body"}],
        )  # fmt: skip
    return row["answer"]


async def remember(tx: Tx, subject: str, key: str | None, status: int, answer: Mapping[str, Any]) -> None:
    """Keep the answer in the transaction of the effect. It must hold no personal data."""
    if key is not None:
        await tx.db.execute(ANSWER, subject, key, status, answer)


async def forget(tx: Tx) -> bool:
    """Drop some answers older than thirty days, after which a command counts anew; True if more are left."""
    return await tx.db.execute(FORGET) == "DELETE 5000"
