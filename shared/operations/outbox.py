"""The outbox as an operator sees it: what waits for the relay, and whether there is one."""

from __future__ import annotations

from pydantic import BaseModel

from shared.postgres import Database
from shared.relay import Relay

WAITING = """
SELECT aggregatetype AS topic, count(*) AS rows,
       greatest(0, extract(epoch FROM now() - min(recorded_at)))::float AS oldest_seconds
FROM outbox GROUP BY aggregatetype ORDER BY oldest_seconds DESC, topic
"""

RELAY_RUNS = """
SELECT EXISTS (SELECT FROM pg_locks
               WHERE locktype = 'advisory' AND granted AND objsubid = 1
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND classid::bigint << 32 | objid::bigint = hashtext('isthmus.relay')::bigint)
"""


class WaitingTopic(BaseModel):
    topic: str
    rows: int
    oldest_seconds: float


class BlockedKey(BaseModel):
    """A key whose next event Kafka does not take; ``*`` stands for every key of the topic."""

    topic: str
    key: str
    reason: str


class RelayView(BaseModel):
    """``active``: this replica is the relay; ``running``: some process is. ``blocked`` is known to the relay only."""

    replica: str
    active: bool
    running: bool
    blocked: list[BlockedKey] | None


class OutboxView(BaseModel):
    """Events that wait, with the age of the oldest in seconds, 0 where none waits."""

    rows: int
    oldest_seconds: float
    topics: list[WaitingTopic]
    relay: RelayView


async def status(database: Database, relay: Relay, replica: str) -> OutboxView:
    """What waits now."""
    async with database.reading() as db:
        topics = [WaitingTopic(**row) for row in await db.fetch(WAITING)]
        running = bool(await db.fetchval(RELAY_RUNS))
    blocked = [BlockedKey(topic=topic, key=key, reason=why) for (topic, key), why in sorted(relay.blocked.items())]
    return OutboxView(
        rows=sum(one.rows for one in topics),
        oldest_seconds=max((one.oldest_seconds for one in topics), default=0.0),
        topics=topics,
        relay=RelayView(
            replica=replica, active=relay.active, running=running, blocked=blocked if relay.active else None
        ),
    )
