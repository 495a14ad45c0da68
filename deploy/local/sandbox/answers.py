"""The answers given to idempotency keys: one key, one request, one thing made."""

from hashlib import sha256

import orjson

from .database import Database
from .problems import ProblemError


class Answers:
    """Used inside the transaction that makes the thing, so that a key is known exactly when its thing exists."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self, key: str, fingerprint: bytes) -> str | None:
        """Return the id of what the key made before. Raises ProblemError 422 if it came with another request."""
        known = self._database.row("SELECT fingerprint, resource FROM answers WHERE key = ?", key)
        if known and known["fingerprint"] != fingerprint:
            raise ProblemError(422, "Idempotency key reused", "this Idempotency-Key came with another request before")
        return known["resource"] if known else None

    def add(self, key: str, fingerprint: bytes, resource: str) -> None:
        self._database.execute("INSERT INTO answers VALUES (?, ?, ?)", key, fingerprint, resource)


def fingerprint(*parts: str | int | None) -> bytes:
    """Tells requests apart, however their bodies were spelled."""
    return sha256(orjson.dumps(parts)).digest()
