"""The batch loop: what a service consumes takes effect exactly once.

Per poll one transaction: unseen messages go to the handler, what it publishes goes to the outbox, and the offsets
advance, all or nothing. If a batch fails it is replayed one message at a time, and only the culprit is set aside.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from shared import envelope, progress
from shared.brake import Brake, BrakedError
from shared.consume import Judge, Subscription
from shared.crash import crash_point
from shared.dead_letters import put_aside
from shared.deadlines import Watermark
from shared.envelope import Outcome, Poison, Record, Unheard, Unknown
from shared.health import Health
from shared.kafka import Consumer, KafkaError
from shared.messages import Event, Message, Topic
from shared.positions import BeyondLogError, Positions
from shared.postgres import Database, is_infrastructure
from shared.progress import FencedError, Place, Step
from shared.sequences import Sequences
from shared.silence import Silence
from shared.telemetry import (
    BATCH_SECONDS,
    BATCH_SIZE,
    EVENT_AGE_SECONDS,
    HANDLER_SECONDS,
    LAG,
    MESSAGES,
    RETRIES,
    log,
)  # fmt: skip
from shared.tracing import Trace, current_trace

MAX_BATCH = 500
POLL_MS = 500
PAUSE = 0.06  # seconds between two batches, at most
ATTEMPTS = 3  # of a single message, before it is taken for poison


EXPECTED_ERRORS = (KafkaError, FencedError, BrakedError, BeyondLogError)


@dataclass(frozen=True)
class Wiring:
    """What the loops of a process share."""

    service: str
    replica: str
    bootstrap_servers: str
    dead_letters: Topic[Any]
    database: Database
    health: Health


class ConsumerLoop:
    """Runs one subscription until stopped; survives the loss of Kafka, of Postgres and of its partitions."""

    def __init__(self, subscription: Subscription, wiring: Wiring):
        self.name = subscription.name
        self._subscription = subscription
        self._wiring = wiring
        self._topics = {topic.name: topic for topic in subscription.topics}
        self._stopping = asyncio.Event()
        self._positions = Positions(self.name, wiring.database)
        self._passed: dict[Place, Step] = {}  # passed over since the database was last told
        self._brake = Brake(f"{wiring.service}.{self.name}")
        self._sequences = Sequences(self.name)
        self._silence = Silence(wiring.bootstrap_servers)
        self._watermark = Watermark(wiring.database)
        self._committed: dict[Place, int] = {}  # what Kafka was told
        self._committed_at = 0.0
        wiring.health.ready_when(f"consumer {self.name}", self._unready)

    def stop(self) -> None:
        """End after the batch at hand."""
        self._stopping.set()

    async def run(self) -> None:
        while not self._stopping.is_set():
            self._beat()
            try:
                await self._consume()
            except Exception as error:
                known = isinstance(error, EXPECTED_ERRORS) or is_infrastructure(error)
                report = log.warning if known else log.exception
                report("consumer starts again", consumer=self.name, reason=f"{type(error).__name__}: {error}")
                RETRIES.labels(f"consume {self.name}").inc()
                await self._pause(10.0 if isinstance(error, (BrakedError, BeyondLogError)) else 1.0)
        self._wiring.health.ended(f"consume {self.name}")

    async def _consume(self) -> None:
        self._positions.revoked()
        kafka = Consumer(
            self._wiring.bootstrap_servers,
            group=f"isthmus.{self._wiring.service}.{self.name}",
            member=f"{self._wiring.replica}.{self.name}",
            max_records=MAX_BATCH,
            poll_ms=POLL_MS,
        )
        try:
            await kafka.start(list(self._topics), self._positions.revoked, self._positions.assigned)
            while not self._stopping.is_set():
                self._beat()
                fetched = await kafka.poll()
                if not self._positions.sought:
                    await self._seek(kafka)
                    continue  # what was fetched came from before the seek
                records = self._positions.following(fetched)
                started = time.monotonic()
                if records:
                    crash_point("consumer polled")
                    self._silence.broken(started)
                    await self._take(records)
                else:
                    await self._silence.listen(kafka, self._positions.at, started)
                await self._after_poll(kafka)
                if records:
                    await self._pause(self._rest(len(records), time.monotonic() - started))
        finally:
            await kafka.stop()

    def _rest(self, taken: int, seconds: float) -> float:
        """As much time for the others as the batch took: the busier the machine, the larger the next batch."""
        patience = self._subscription.patience if taken < MAX_BATCH else 0.0
        return max(min(seconds, PAUSE), patience)

    async def _seek(self, kafka: Consumer) -> None:
        if await self._positions.seek(kafka):
            self._passed.clear()
            self._committed.clear()
            self._sequences.clear()
            self._silence.broken(time.monotonic())
            self._watermark.restart(time.monotonic())

    # -- one batch ------------------------------------------------------------------------------------------------

    async def _take(self, records: Sequence[Record]) -> None:
        current_trace.set(Trace.new())
        started = time.perf_counter()
        try:
            await self._apply(records)
        except Exception as error:
            if _stops(error) and not (isinstance(error, BrakedError) and len(records) > 1):
                raise
            if len(records) == 1:
                await self._set_aside(records[0], error)
            else:
                log.warning("batch failed; replaying it one by one", consumer=self.name, error=repr(error)[:500])
                for record in records:
                    await self._take([record])
                return
        BATCH_SIZE.labels(self.name).observe(len(records))
        BATCH_SECONDS.labels(self.name).observe(time.perf_counter() - started)

    async def _set_aside(self, record: Record, error: Exception) -> None:
        for attempt in range(2, ATTEMPTS + 1):
            try:
                await self._apply([record])
            except Exception as again:
                if _stops(again):
                    raise
                log.warning("message failed again", consumer=self.name, attempt=attempt, error=repr(again)[:500])
            else:
                return
        log.error("dead letter", consumer=self.name, place=(record.topic, record.partition, record.offset),
                  exc_info=error)  # fmt: skip
        await self._apply([record], Poison(f"{type(error).__name__}: {error}"[:2000]))

    async def _apply(self, records: Sequence[Record], poison: Poison | None = None) -> None:
        """One transaction; tried for as long as the infrastructure fails, since that says nothing of the messages."""
        hears = self._subscription.hears
        read = [poison or envelope.hear(record, self._topics[record.topic], hears) for record in records]
        if all(isinstance(one, Unheard) for one in read):
            return self._pass_over(records, read)
        pause = 0.05
        while True:
            try:
                return await self._apply_once(records, read)
            except Exception as error:
                if not is_infrastructure(error) or self._stopping.is_set():
                    raise
                log.warning("trying again", consumer=self.name, reason=f"{type(error).__name__}: {error}")
                RETRIES.labels(f"consume {self.name}").inc()
                self._beat()
                await self._pause(pause)
                pause = min(pause * 2, 5.0)

    def _pass_over(self, records: Sequence[Record], read: Sequence[Outcome | Unheard]) -> None:
        """Without a transaction: the database is told with the next batch, or within a second."""
        self._passed = self._steps(records, read)
        self._went(records, read, [])

    def _steps(self, records: Sequence[Record], read: Sequence[Outcome | Unheard]) -> dict[Place, Step]:
        """From where the database stands to behind these records, with what is passed over counted."""
        steps = {place: replace(step) for place, step in self._passed.items()}
        for record, outcome in zip(records, read, strict=True):
            place = (record.topic, record.partition)
            at = self._positions.at[place]
            step = steps.setdefault(place, Step(at, at))
            step.skipped += record.offset - step.new  # offsets that hold no message for us, if any
            step.skipped += isinstance(outcome, (Unheard, Unknown))
            step.new = record.offset + 1
        return steps

    async def _apply_once(self, records: Sequence[Record], read: Sequence[Outcome | Unheard]) -> None:
        steps = self._steps(records, read)
        messages = [message for message in read if isinstance(message, Message)]
        handled: list[Message[Event]] = []
        poisoned = 0
        async with self._wiring.database.transaction() as tx:
            if messages:
                fresh = await progress.unseen(tx.db, self.name, ((_day(m), m.id) for m in messages))
                for message in messages:
                    step = steps[message.topic, message.partition]
                    if message.id in fresh:
                        fresh.discard(message.id)
                        handled.append(message)
                        step.applied += 1
                    else:
                        step.duplicate += 1
            if handled:
                with HANDLER_SECONDS.labels(self.name).time():
                    await self._subscription.handle(tx, handled)
            for record, outcome in zip(records, read, strict=True):
                if isinstance(outcome, Poison):
                    poisoned += 1
                    self._brake.check(poisoned)
                    steps[record.topic, record.partition].dead_lettered += 1
                    await put_aside(
                        tx, self._wiring.dead_letters.name, record,
                        service=self._wiring.service, consumer=self.name, reason=outcome.reason,
                    )  # fmt: skip
            await progress.advance(tx.db, self.name, steps)
        self._passed.clear()
        self._count(steps.values())
        self._went(records, read, handled)

    def _count(self, steps: Iterable[Step]) -> None:
        for step in steps:
            for outcome in ("applied", "duplicate", "skipped", "dead_lettered"):
                if number := getattr(step, outcome):
                    MESSAGES.labels(self.name, outcome).inc(number)
            self._brake.count(good=step.applied + step.duplicate + step.skipped, bad=step.dead_lettered)

    def _went(
        self, records: Sequence[Record], read: Sequence[Outcome | Unheard], handled: Sequence[Message[Event]]
    ) -> None:
        """Remember how far we are, and raise an alarm where a sequence has a gap."""
        if handled:
            oldest = min(message.recorded_at for message in handled)
            EVENT_AGE_SECONDS.labels(self.name).observe(max(0.0, (datetime.now(UTC) - oldest).total_seconds()))
        for record, outcome in zip(records, read, strict=True):
            self._positions.took(record)
            if isinstance(outcome, (Message, Unheard)):
                self._sequences.follow(record.topic, outcome.key, outcome.sequence)

    # -- between batches ------------------------------------------------------------------------------------------

    async def _after_poll(self, kafka: Consumer) -> None:
        now = time.monotonic()
        if now - self._committed_at >= 1.0:
            self._committed_at = now
            await self._tell_database()
            await self._tell_kafka(kafka)
        if self._subscription.judge is not None:
            await self._judge_deadlines(kafka, self._subscription.judge, now)

    async def _tell_database(self) -> None:
        """What was passed over, when no batch followed to tell of it."""
        if not self._passed:
            return
        async with self._wiring.database.transaction() as tx:
            await progress.advance(tx.db, self.name, self._passed)
        self._count(self._passed.values())
        self._passed.clear()

    async def _tell_kafka(self, kafka: Consumer) -> None:
        """Kafka's copy of the offsets serves lag and autoscaling only; the truth is in the database."""
        lag: dict[str, int] = defaultdict(int)
        for place, position in self._positions.at.items():
            lag[place[0]] += max(0, (kafka.highwater(place) or position) - position)
        for topic, number in lag.items():
            LAG.labels(self.name, topic).set(number)
        news = {place: at for place, at in self._positions.at.items() if self._committed.get(place) != at}
        if not news:
            return
        crash_point("consumer before offset commit")
        try:
            await asyncio.wait_for(kafka.commit(news), 5)
            self._committed |= news
        except (KafkaError, TimeoutError) as error:
            log.info("offsets not committed to Kafka", consumer=self.name, reason=f"{type(error).__name__}: {error}")
        crash_point("consumer after offset commit")

    async def _judge_deadlines(self, kafka: Consumer, judge: Judge, now: float) -> None:
        due = await self._watermark.due(kafka, self._positions.at, now) if self._positions.sought else None
        if due is not None:
            async with self._wiring.database.transaction() as tx:
                await judge(tx, due)

    async def _unready(self) -> str | None:
        if self._positions.beyond:
            return "its offsets lie beyond the end of Kafka's log; the process's log says what to do"
        return None if self._positions.joined else "has not joined its group yet"

    def _beat(self) -> None:
        self._wiring.health.beat(f"consume {self.name}")

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


def _stops(error: Exception) -> bool:
    """Whether ``error`` ends the loop's turn instead of a message: nothing is set aside for it."""
    return isinstance(error, (FencedError, BrakedError)) or is_infrastructure(error)


def _day(message: Message[Event]) -> date:
    return message.recorded_at.astimezone(UTC).date()
