"""The webhooks still to deliver, queued in the transaction of what they tell."""

import time
from dataclasses import dataclass
from uuid import uuid4

from .database import Database


@dataclass(frozen=True)
class Webhook:
    seq: int
    id: str
    body: str
    attempts: int


class Outbox:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, body: str, deliveries: list[float]) -> None:
        """Queue one webhook, to be delivered after each of so many seconds, under one id."""
        webhook_id, now = f"msg_{uuid4().hex}", time.time()
        for after in deliveries:
            self._database.execute(
                "INSERT INTO webhooks (id, body, due_at) VALUES (?, ?, ?)", webhook_id, body, now + after
            )

    def due(self, limit: int) -> list[Webhook]:
        """Return what is due, longest first, including what is being delivered right now."""
        sql = "SELECT seq, id, body, attempts FROM webhooks WHERE due_at <= ? ORDER BY due_at LIMIT ?"
        return [Webhook(*row) for row in self._database.rows(sql, time.time(), limit)]

    def attempted(self, seq: int, next_in: float | None) -> None:
        """Note an attempt at a webhook, due again in so many seconds, or done with (None)."""
        due_at = None if next_in is None else time.time() + next_in
        sql = "UPDATE webhooks SET attempts = attempts + 1, due_at = ? WHERE seq = ?"
        self._database.execute(sql, due_at, seq)

    def waiting(self) -> int:
        row = self._database.row("SELECT count(*) FROM webhooks WHERE due_at IS NOT NULL")
        return row[0] if row else 0
