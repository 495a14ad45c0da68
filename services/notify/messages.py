"""Messages that are due: claimed, marked before they are handed over, and settled with their outcome.

A claim is a lease, and its number of attempts the fence: only who claimed a message last may mark it, and once it is
marked nobody sends it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prometheus_client import Counter

from shared.events.notify import CareFailed, CareSent
from shared.messages import Cause
from shared.postgres import Database, Row, is_infrastructure
from shared.topics import CARE
from shared.tracing import Trace

HANDED_OVER_SECONDS = 150  # longer than we wait for the two answers to a message handed over
LONGEST_PAUSE = 300.0
MARK_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)  # seconds, between attempts to mark a message

OUTCOMES = Counter("isthmus_care_messages", "Messages to customers by what became of them", ["trigger", "outcome"])

CLAIM = """
WITH due AS MATERIALIZED (
    SELECT order_id, trigger FROM messages WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE messages AS m SET due_at = now() + $2 * interval '1 second', attempts = m.attempts + 1
FROM due JOIN care_orders o USING (order_id) JOIN care c USING (order_id, trigger)
WHERE m.order_id = due.order_id AND m.trigger = due.trigger
RETURNING m.order_id, m.trigger, m.attempts, m.facts, m.traceparent, o.customer_id, o.reference, c.reason,
    m.handing_over_at IS NOT NULL AS handing_over,
    m.attempts > 1 AND m.queued_at < now() - $3 * interval '1 hour' AS overdue,
    c.occurred_at < now() - $4 * interval '1 day' AS stale
"""

# Locked in the order of all who lock several.
HAND_OVER = """
WITH own AS MATERIALIZED (
    SELECT m.order_id, m.trigger FROM unnest($1::uuid[], $2::text[], $3::int[]) AS n (order_id, trigger, attempts)
    JOIN messages m USING (order_id, trigger, attempts)
    WHERE m.handing_over_at IS NULL OR $5 ORDER BY m.order_id, m.trigger FOR UPDATE OF m
)
UPDATE messages AS m SET handing_over_at = now(), due_at = now() + $4 * interval '1 second'
FROM own WHERE m.order_id = own.order_id AND m.trigger = own.trigger RETURNING m.order_id, m.trigger
"""

AGAIN = """
UPDATE messages SET handing_over_at = NULL, due_at = now() + $4 * interval '1 second'
WHERE order_id = $1 AND trigger = $2 AND attempts = $3
"""

LOCK_ORDERS = """
SELECT order_id, customer_id, version FROM care_orders WHERE order_id = ANY($1::uuid[])
ORDER BY order_id FOR NO KEY UPDATE
"""

LOCK_MESSAGES = """
SELECT order_id, trigger, attempts, cause_id, correlation_id, traceparent FROM messages
WHERE order_id = ANY($1::uuid[]) ORDER BY order_id, trigger FOR UPDATE
"""

SETTLE_CARE = """
UPDATE care SET state = CASE WHEN n.failure IS NULL THEN 'sent' ELSE 'failed' END, failure = n.failure,
    sent_at = CASE WHEN n.failure IS NULL THEN n.at END
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[]) AS n (order_id, trigger, failure, at)
WHERE care.order_id = n.order_id AND care.trigger = n.trigger
"""

SAVE_VERSIONS = """
UPDATE care_orders AS o SET version = n.version FROM unnest($1::uuid[], $2::bigint[]) AS n (order_id, version)
WHERE o.order_id = n.order_id
"""

DELETE_MESSAGES = """
DELETE FROM messages USING unnest($1::uuid[], $2::text[]) AS n (order_id, trigger)
WHERE messages.order_id = n.order_id AND messages.trigger = n.trigger
"""


@dataclass(frozen=True)
class Due:
    """A claimed message. ``handing_over``: an earlier attempt did not live to tell whether the mail server took it.
    ``overdue``: it has been tried for as long as it may. ``stale``: what it tells of is long past."""

    order_id: UUID
    trigger: str
    attempts: int
    facts: Mapping[str, Any]
    traceparent: str
    customer_id: UUID | None
    reference: str | None
    reason: str | None
    handing_over: bool
    overdue: bool
    stale: bool

    def sent(self) -> Outcome:
        return Outcome(self.order_id, self.trigger, self.attempts, datetime.now(UTC))

    def failed(self, failure: str) -> Outcome:
        return Outcome(self.order_id, self.trigger, self.attempts, datetime.now(UTC), failure)


@dataclass(frozen=True)
class Outcome:
    """What came of a message: sent, unless there is a ``failure``."""

    order_id: UUID
    trigger: str
    attempts: int
    at: datetime
    failure: str | None = None


async def claim(
    database: Database, room: int, lease_seconds: float, give_up_hours: float, stale_days: float
) -> list[Due]:
    """At most ``room`` messages that are due, nobody else's until their lease runs out."""
    async with database.transaction() as tx:
        rows = await tx.db.fetch(CLAIM, room, lease_seconds, give_up_hours, stale_days)
        return [Due(**row) for row in rows]


async def hand_over(database: Database, dues: Sequence[Due]) -> list[bool]:
    """Mark messages as being handed over, for good; False for each that was stopped or claimed again meanwhile.

    A database that goes away here may have committed the marks without saying so: it is asked again. A mark that is
    found then is our own, as nobody else may set one with this number of attempts.
    """
    for attempt, pause in enumerate(MARK_PAUSES):
        try:
            return await _mark(database, dues, again=attempt > 0)
        except Exception as error:
            if not is_infrastructure(error):
                raise
            await asyncio.sleep(pause)
    return await _mark(database, dues, again=True)


async def _mark(database: Database, dues: Sequence[Due], *, again: bool) -> list[bool]:
    keys = ([getattr(due, name) for due in dues] for name in ("order_id", "trigger", "attempts"))
    async with database.transaction() as tx:
        rows = await tx.db.fetch(HAND_OVER, *keys, HANDED_OVER_SECONDS, again)
    marked = {(row["order_id"], row["trigger"]) for row in rows}
    return [(due.order_id, due.trigger) in marked for due in dues]


async def again(database: Database, due: Due) -> None:
    """Try a message again after a while; the mail server certainly does not have it."""
    pause = min(LONGEST_PAUSE, 2 ** min(due.attempts, 16) / 2)
    async with database.transaction() as tx:
        await tx.db.execute(AGAIN, due.order_id, due.trigger, due.attempts, pause)


async def settle(database: Database, outcomes: Sequence[Outcome]) -> None:
    """Store and say what became of messages, once each: of a message that is gone nothing more is said."""
    ids = sorted({outcome.order_id for outcome in outcomes})
    async with database.transaction() as tx:
        orders = {row["order_id"]: row for row in await tx.db.fetch(LOCK_ORDERS, ids)}
        versions = {order_id: row["version"] for order_id, row in orders.items()}
        waiting = {(row["order_id"], row["trigger"]): row for row in await tx.db.fetch(LOCK_MESSAGES, ids)}
        settled: list[Outcome] = []
        for outcome in outcomes:
            message = waiting.get((outcome.order_id, outcome.trigger))
            if message is not None and (message["attempts"] == outcome.attempts or outcome.failure is None):
                del waiting[outcome.order_id, outcome.trigger]
                versions[outcome.order_id] += 1
                event = _event(outcome, orders[outcome.order_id]["customer_id"])
                tx.publish(CARE, event, cause=_cause(message), sequence=versions[outcome.order_id])
                settled.append(outcome)
        if not settled:
            return
        keys = ([one.order_id for one in settled], [one.trigger for one in settled])
        await tx.db.execute(SETTLE_CARE, *keys, [one.failure for one in settled], [one.at for one in settled])
        await tx.db.execute(DELETE_MESSAGES, *keys)
        changed = sorted({one.order_id for one in settled})
        await tx.db.execute(SAVE_VERSIONS, changed, [versions[order_id] for order_id in changed])
        tx.after_commit(lambda: _count(settled))


def _event(outcome: Outcome, customer_id: UUID | None) -> CareSent | CareFailed:
    if outcome.failure is None:
        assert customer_id is not None
        return CareSent(
            occurred_at=outcome.at, order_id=outcome.order_id, trigger=outcome.trigger, customer_id=customer_id,
            template=outcome.trigger,
        )  # fmt: skip
    return CareFailed(
        occurred_at=outcome.at, order_id=outcome.order_id, trigger=outcome.trigger, customer_id=customer_id,
        reason=outcome.failure,
    )  # fmt: skip


def _cause(message: Row) -> Cause:
    """The event that triggered the care: it has one outcome, so the same id twice would be the same word twice."""
    return Cause(
        id=message["cause_id"], correlation_id=message["correlation_id"], trace=Trace.parse(message["traceparent"])
    )


def _count(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        OUTCOMES.labels(outcome.trigger, outcome.failure or "sent").inc()
