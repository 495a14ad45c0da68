"""A dead letter is applied after all: to the consumer that put it aside, in one transaction, at most once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Literal
from uuid import UUID

from shared import envelope, progress
from shared.consume import Consumers, Subscription
from shared.envelope import Poison, Unknown
from shared.messages import Event, Message
from shared.operations.letters import DeadLetter
from shared.postgres import Connection, Database, Row, Tx, is_infrastructure
from shared.telemetry import REDRIVEN, log

Outcome = Literal["applied", "already_applied"]

REDRIVES = """
SELECT consumer, event_id, outcome, redriven_by, redriven_at FROM redrives
WHERE $1::uuid[] IS NULL OR event_id = ANY($1)
"""

KNOWN = "SELECT EXISTS (SELECT FROM redrives WHERE consumer = $1 AND event_id = $2)"

# What lies beyond the offset has not been consumed by this database, and will be.
COUNT = """
UPDATE consumer_offsets SET redriven = redriven + 1
WHERE consumer = $1 AND topic = $2 AND partition = $3 AND next_offset > $4
"""

NOTE = "INSERT INTO redrives (consumer, event_id, letter, outcome, redriven_by) VALUES ($1, $2, $3, $4, $5)"


class NoConsumerError(Exception):
    """The consumer that put it aside is none of this service, or no longer."""


class RefusedError(Exception):
    """It cannot be applied, and why; nothing has changed."""


async def redrives(db: Connection, event_ids: Sequence[UUID] | None = None) -> dict[tuple[str, UUID], Row]:
    """What was redriven, by consumer and event: of these events, or all."""
    return {(row["consumer"], row["event_id"]): row for row in await db.fetch(REDRIVES, event_ids)}


class Redriver:
    """Applies dead letters of the service that has these consumers."""

    def __init__(self, consumers: Consumers, database: Database):
        self._subscriptions = {one.name: one for one in consumers.subscriptions}
        self._database = database

    async def redrive(self, letter: DeadLetter, by: str) -> Outcome:
        """Apply ``letter``, unless its event has been applied; ``by`` is who asked for it.

        Raises NoConsumerError, or RefusedError where it cannot be read or its handler fails again. Errors of the
        infrastructure pass through: try again.
        """
        subscription = self._subscriptions.get(letter.consumer)
        if subscription is None:
            raise NoConsumerError(f"there is no consumer {letter.consumer}")
        try:
            message = _read(letter, subscription)
            async with self._database.transaction() as tx:
                outcome = await _apply(tx, subscription, message, letter, by)
        except Exception as error:
            if is_infrastructure(error):
                raise
            REDRIVEN.labels(letter.consumer, "refused").inc()
            why = str(error) if isinstance(error, RefusedError) else f"{type(error).__name__}: {error}"[:2000]
            log.warning("dead letter refused again", consumer=letter.consumer, letter=letter.offset, by=by, reason=why)
            raise RefusedError(why) from error
        REDRIVEN.labels(letter.consumer, outcome).inc()
        log.info("dead letter redriven", consumer=letter.consumer, letter=letter.offset, by=by, outcome=outcome)
        return outcome


def _read(letter: DeadLetter, subscription: Subscription) -> Message[Event]:
    original = letter.original
    topic = next((topic for topic in subscription.topics if topic.name == original.topic), None)
    if topic is None:
        raise RefusedError(f"{subscription.name} no longer reads {original.topic}")
    match envelope.read(original, topic):
        case Poison(reason=reason):
            raise RefusedError(reason)
        case Unknown(type=type_):
            raise RefusedError(f"this release does not know the type {type_}")
        case message:
            return message


async def _apply(tx: Tx, subscription: Subscription, message: Message[Event], letter: DeadLetter, by: str) -> Outcome:
    name = subscription.name
    await progress.alone(tx.db, name)
    if await tx.db.fetchval(KNOWN, name, message.id):
        return "already_applied"
    outcome: Outcome = "already_applied"
    day = message.recorded_at.astimezone(UTC).date()
    if await progress.unseen(tx.db, name, [(day, message.id)]):
        outcome = "applied"
        await subscription.handle(tx, [message])
        if await tx.db.execute(COUNT, name, message.topic, message.partition, message.offset) != "UPDATE 1":
            place = f"{message.topic}/{message.partition} up to {message.offset}"
            raise RefusedError(f"{name} has not read {place} into this database, and will apply it itself")
    await tx.db.execute(NOTE, name, message.id, letter.offset, outcome, by)
    return outcome
