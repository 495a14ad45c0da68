"""A view is built anew from Kafka's log: into new tables, with offsets of their own, which then replace the old ones.

The service goes on meanwhile, and reads the old tables until the moment of the change. What does the work is the
handler that keeps the view up to date otherwise: its connection finds the new tables first. A rebuild that was stopped
goes on where it was, unless it is to begin ``anew``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, NoReturn

import asyncpg

from shared import envelope, kafka, progress
from shared.envelope import Outcome, Poison, Record, Unheard
from shared.kafka import KafkaError
from shared.messages import Event, Message
from shared.postgres import INFRASTRUCTURE_ERRORS, Connection, Tx, is_infrastructure, prepare_connection
from shared.progress import Place, Step
from shared.views import View

CHUNK = 2000  # records per transaction
CLOSE = 2000  # records behind the service: near enough to stop it for a moment and read the rest
LEFT_OUT = 100  # records that cannot be applied: with more, something else is wrong
PATIENCE = 5.0  # seconds for the exchange, while nobody writes to the old tables
LOCK_PATIENCE = 2.0  # seconds that others may wait behind us while we wait for a lock
TOLD_EVERY = 5.0  # seconds

TRY_LOCK = "SELECT pg_try_advisory_lock(hashtext('isthmus.rebuild'), hashtext($1))"
LIVE = "SELECT topic, partition, next_offset FROM public.consumer_offsets WHERE consumer = $1"
UNSAID = "SELECT EXISTS (SELECT FROM public.outbox WHERE aggregatetype = ANY($1::text[]))"
RELAYED = "SELECT topic, partition, next_offset FROM public.relayed WHERE topic = ANY($1::text[])"
ODD = """
SELECT 'a trigger' FROM pg_trigger WHERE tgrelid = $1::text::regclass AND NOT tgisinternal
UNION ALL SELECT 'an identity column' FROM pg_attribute WHERE attrelid = $1::text::regclass AND attidentity <> ''
UNION ALL SELECT 'a table that refers to it' FROM pg_constraint WHERE confrelid = $1::text::regclass
"""
SHAPE = """
SELECT array_agg(part ORDER BY part) FROM (
    SELECT format('%s %s %s', attname, format_type(atttypid, atttypmod), attnotnull) FROM pg_attribute
    WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid = $1::text::regclass AND contype <> 'n'
    UNION ALL SELECT relname FROM pg_index JOIN pg_class ON indexrelid = oid WHERE indrelid = $1::text::regclass
) AS parts (part)
"""
REFERRED_TO = """
SELECT DISTINCT confrelid::regclass::text FROM pg_constraint WHERE conrelid = $1::text::regclass AND contype = 'f'
"""

# What a copy needs to be the same table, as statements: storage, keys and indexes by their names, and who may use it.
LIKE_THE_OLD = """
SELECT format('ALTER TABLE %s SET (%s)', $2::text, array_to_string(reloptions, ', ')) FROM pg_class
WHERE oid = $1::text::regclass AND reloptions IS NOT NULL
UNION ALL
SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', $2::text, conname, pg_get_constraintdef(oid)) FROM pg_constraint
WHERE conrelid = $1::text::regclass AND contype IN ('p', 'u', 'x', 'f')
UNION ALL
SELECT replace(pg_get_indexdef(indexrelid), ' ON ' || $1::text || ' ', ' ON ' || $2::text || ' ') FROM pg_index i
WHERE indrelid = $1::text::regclass AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)
UNION ALL
SELECT format('GRANT %s ON %s TO %s', privilege_type, $2::text,
              CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)
FROM pg_class, aclexplode(relacl) WHERE oid = $1::text::regclass AND grantee <> relowner
"""


Read = tuple[Record, Outcome | Unheard]
OPTIONS = ("--anew", "--leave-out")


class RebuildError(Exception):
    """The view was not rebuilt; the message says why and what to do. The old tables are as they were."""


@dataclass
class Rebuilt:
    """What a rebuild did, once the new tables are in place: records read, in how many seconds, and what was left out.

    ``kept`` says why the old tables are still there, in another schema, if they are.
    """

    view: str
    events: int
    seconds: float
    left_out: int
    kept: str | None = None


class _Reading(Tx):
    """A transaction in which nothing can be said."""

    def publish(self, *_: Any, **__: Any) -> NoReturn:
        raise RebuildError("a view must not publish: everything it could say was said when it was built first")


async def rebuild(
    view: View, database_url: str, bootstrap_servers: str, say: Callable[[str], None], *,
    anew: bool = False, leave_out: bool = False,
) -> Rebuilt:  # fmt: skip
    """Build ``view`` anew and put it in place; ``say`` is told how far it is. Raises RebuildError.

    ``anew``: what a rebuild that was stopped has left does not count, as after a release that writes it otherwise.
    ``leave_out``: records that cannot be applied are left out; else the first one ends the rebuild.
    """
    connection: Connection = await asyncpg.connect(
        database_url,
        # The commit that changes the tables waits for the disk; one before it may be lost, with its offsets.
        server_settings={"search_path": f"{view.schema},public", "synchronous_commit": "off", "timezone": "UTC",
                         "tcp_keepalives_idle": "10", "lock_timeout": f"{LOCK_PATIENCE:g}s"},
    )  # fmt: skip
    try:
        await prepare_connection(connection)
        if not await connection.fetchval(TRY_LOCK, view.name):
            raise RebuildError(f"{view.name} is being rebuilt already: wait for it")
        return await _Rebuild(view, connection, bootstrap_servers, say, leave_out=leave_out).run(anew=anew)
    except asyncpg.LockNotAvailableError as error:
        raise RebuildError("others hold locks for long: see pg_stat_activity, then start it again") from error
    except asyncpg.DependentObjectsStillExistError as error:
        what = f"{view.replaced} has the old tables of an earlier rebuild, and something still uses them"
        raise RebuildError(f"{what}: drop both. {error.detail}") from error
    except (KafkaError, *INFRASTRUCTURE_ERRORS) as error:
        raise RebuildError(f"{type(error).__name__}: {error}. What was read is kept: start it again") from error
    finally:
        await connection.close(timeout=5)


async def show(views: Sequence[View], words: Sequence[str], database_url: str, bootstrap_servers: str) -> int:
    """Rebuild the views that ``words`` name, one after the other, and print how it goes; without one, list them.
    Returns the exit code."""
    known = {view.name: view for view in views}
    names, options = [one for one in words if one not in OPTIONS], {one for one in words if one in OPTIONS}
    if not names or not known.keys() >= set(names):
        for view in views:
            topics = ", ".join(topic.name for topic in view.topics)
            sys.stdout.write(f"{view.name}: {', '.join(view.tables)}, from {topics}\n")
        return 2 if words else 0
    for name in names:
        try:
            done = await rebuild(
                known[name], database_url, bootstrap_servers, partial(_print, name),
                anew="--anew" in options, leave_out="--leave-out" in options,
            )  # fmt: skip
        except RebuildError as error:
            _print(name, f"not rebuilt. {error}")
            return 1
        per_second = done.events / max(done.seconds, 1e-9)
        _print(name, f"rebuilt from {done.events:,} events in {done.seconds:.1f} s, {per_second:,.0f} a second")
        if done.left_out:
            _print(name, f"{done.left_out} records were left out")
        if done.kept is not None:
            _print(name, done.kept)
    return 0


def _print(name: str, line: str) -> None:
    sys.stdout.write(f"{name}: {line}\n")
    sys.stdout.flush()


class _Rebuild:
    def __init__(
        self, view: View, connection: Connection, bootstrap_servers: str, say: Callable[[str], None], *, leave_out: bool
    ):
        self._view, self._db, self._bootstrap_servers, self._say = view, connection, bootstrap_servers, say
        self._by_name = {topic.name: topic for topic in view.topics}
        self._leave_out_bad = leave_out
        self._left_out = self._events = 0
        self._started = self._told_at = time.monotonic()

    async def run(self, *, anew: bool) -> Rebuilt:
        await self._drop_replaced()
        await self._prepare(anew=anew)
        before = inf
        while CLOSE < (behind := self._behind(until := await self._reachable())) < before:  # as long as it comes nearer
            await self._read(until)
            before = behind
        await self._exchange()
        seconds, kept = time.monotonic() - self._started, None
        try:
            await self._drop_replaced()
        except (asyncpg.PostgresError, *INFRASTRUCTURE_ERRORS) as error:
            detail = getattr(error, "detail", None) or error
            kept = f"the old tables are still there, in {self._view.replaced}: drop them later. {detail}"
        return Rebuilt(self._view.name, self._events, seconds, self._left_out, kept)

    # -- tables ---------------------------------------------------------------------------------------------------

    async def _prepare(self, *, anew: bool) -> None:
        """New, empty tables and offsets; or those of a rebuild that was stopped."""
        bounds = await kafka.bounds(self._bootstrap_servers, self._by_name)
        if missing := self._by_name.keys() - {topic for topic, _ in bounds}:
            raise RebuildError(f"there is no topic {', '.join(sorted(missing))}: is this the right Kafka?")
        for table in self._view.tables:
            if odd := await self._db.fetchval(ODD, f"public.{table}"):
                raise RebuildError(f"{table} has {odd}, which a new table would lack")
        there = await self._db.fetchval("SELECT to_regnamespace($1) IS NOT NULL", self._view.schema)
        async with self._db.transaction():
            if there and anew:
                await self._drop(self._view.schema, [*self._view.tables, "consumer_offsets"])
            if not there or anew:
                await self._create()
                await progress.start(self._db, self._view.name, dict.fromkeys(bounds, 0))
            else:
                self._say("going on with the rebuild that was stopped")
        self._at = await progress.load(self._db, self._view.name)
        self._left_out = await self._db.fetchval("SELECT sum(dead_lettered)::bigint FROM consumer_offsets")
        if self._left_out and not self._leave_out_bad:
            raise RebuildError(f"the one that was stopped left {self._left_out} records out: begin --anew")

    async def _create(self) -> None:
        await self._db.execute(f"CREATE SCHEMA {self._view.schema}")
        for table in (*self._view.tables, "consumer_offsets"):
            old, new = f"public.{table}", f"{self._view.schema}.{table}"
            await self._db.execute(f"CREATE TABLE {new} (LIKE {old} INCLUDING ALL EXCLUDING INDEXES)")
            for (statement,) in await self._db.fetch(LIKE_THE_OLD, old, new):
                await self._db.execute(statement)

    async def _exchange(self) -> None:
        """The rest is read while nobody writes to the old tables, and the new ones take their names.

        The old ones are only put aside: to drop them would take locks that those hold who wait for us.
        """
        new, old = self._view.schema, self._view.replaced
        try:
            async with asyncio.timeout(PATIENCE), self._db.transaction():
                await self._db.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{PATIENCE * 2:g}s'")
                await self._quiet()
                await self._read(await self._reachable())
                await self._db.execute(f"CREATE SCHEMA {old}")
                for table in self._view.tables:
                    shapes = [await self._db.fetchval(SHAPE, f"{schema}.{table}") for schema in ("public", new)]
                    if shapes[0] != shapes[1]:
                        raise RebuildError(f"{table} was migrated meanwhile: begin --anew")
                    await self._db.execute(f"ALTER TABLE public.{table} SET SCHEMA {old}")
                    await self._db.execute(f"ALTER TABLE {new}.{table} SET SCHEMA public")
                await self._db.execute(f"DROP TABLE {new}.consumer_offsets")
                await self._db.execute(f"DROP SCHEMA {new}")
                await self._db.execute("SET LOCAL synchronous_commit = on")
        except TimeoutError as error:
            why = "more is said than is read, or Kafka is slow or away"
            raise RebuildError(f"the exchange would take more than {PATIENCE:g} s: {why}. Start it again") from error

    async def _quiet(self) -> None:
        """From here on the old tables do not change, and the log tells all that is in them."""
        if not self._view.own:
            await self._db.execute(f"SET LOCAL lock_timeout = '{PATIENCE:g}s'")  # its consumer may have a large batch
            return await progress.alone(self._db, self._view.name)
        for table in self._view.tables:
            await self._db.execute(f"LOCK TABLE public.{table} IN ACCESS EXCLUSIVE MODE")
        # What the old tables have and the outbox still keeps is not in the log.
        until = time.monotonic() + PATIENCE / 2
        while await self._db.fetchval(UNSAID, list(self._by_name)):
            if time.monotonic() > until:
                raise RebuildError("events wait in the outbox: is a relay running, and Kafka there? Try again then")
            await asyncio.sleep(0.02)
        return None

    async def _drop_replaced(self) -> None:
        """What was put aside, by this rebuild or by one that was stopped then."""
        if await self._db.fetchval("SELECT to_regnamespace($1) IS NOT NULL", self._view.replaced):
            async with self._db.transaction():
                await self._drop(self._view.replaced, self._view.tables)

    async def _drop(self, schema: str, tables: Sequence[str]) -> None:
        """In the order of locks that writers keep: first what a table refers to, then the table."""
        for table in tables:
            for (other,) in await self._db.fetch(REFERRED_TO, f"{schema}.{table}"):
                await self._db.execute(f"LOCK TABLE {other} IN ACCESS EXCLUSIVE MODE")
            await self._db.execute(f"DROP TABLE {schema}.{table}")
        await self._db.execute(f"DROP SCHEMA {schema}")

    # -- the log --------------------------------------------------------------------------------------------------

    async def _reachable(self) -> dict[Place, int]:
        """Up to where the log can be read: to its end, or as far as the consumer has come that keeps the old tables.

        Raises RebuildError where the log does not have all that the old tables were made of.
        """
        known = await (
            self._db.fetch(RELAYED, list(self._by_name))
            if self._view.own
            else self._db.fetch(LIVE, self._view.name)
        )  # fmt: skip
        live = {(row["topic"], row["partition"]): row["next_offset"] for row in known}
        bounds = await kafka.bounds(self._bootstrap_servers, self._by_name)  # after the reading: both go on meanwhile
        if bounds.keys() != self._at.keys():
            raise RebuildError("a topic has other partitions than when it was begun: begin --anew")
        if begun := {place: first for place, (first, _) in bounds.items() if first > 0}:
            raise RebuildError(f"the log no longer has its beginning, so not all would come back: {begun}")
        if beyond := {place: at for place, at in live.items() if at > bounds.get(place, (0, 0))[1]}:
            raise RebuildError(f"the log ends before {beyond}: it has lost data, or this is another Kafka")
        return {place: end if self._view.own else live.get(place, 0) for place, (_, end) in bounds.items()}

    def _behind(self, until: Mapping[Place, int]) -> int:
        return sum(max(0, end - self._at[place]) for place, end in until.items())

    async def _read(self, until: Mapping[Place, int]) -> None:
        behind = {place: end for place, end in until.items() if end > self._at[place]}
        if not behind:
            return
        async with aclosing(self._chunks(behind)) as chunks:
            async for chunk in chunks:
                await self._take(chunk)
                self._tell(until)

    async def _chunks(self, until: Mapping[Place, int]) -> AsyncGenerator[list[Read]]:
        chunk: list[Read] = []
        records = kafka.read_range(self._bootstrap_servers, {place: self._at[place] for place in until}, until)
        async with aclosing(records):
            async for record in records:
                chunk.append((record, envelope.hear(record, self._by_name[record.topic], self._view.hears)))
                if len(chunk) >= CHUNK:
                    yield chunk
                    chunk = []
        if chunk:
            yield chunk

    def _tell(self, until: Mapping[Place, int]) -> None:
        now = time.monotonic()
        if now - self._told_at >= TOLD_EVERY:
            self._told_at = now
            per_second = self._events / (now - self._started)
            self._say(f"{self._events:,} events read, {self._behind(until):,} to go, {per_second:,.0f} a second")

    async def _take(self, chunk: Sequence[Read]) -> None:
        """Apply records in one transaction; if that fails, one by one, to find the one that cannot be applied."""
        try:
            async with self._db.transaction():
                await self._apply(chunk)
        except Exception as error:
            if is_infrastructure(error) or isinstance(error, RebuildError):
                raise
            if len(chunk) > 1:
                for one in chunk:
                    await self._take([one])
            else:
                await self._leave_out(chunk[0][0], f"{type(error).__name__}: {error}"[:500])

    async def _leave_out(self, record: Record, reason: str) -> None:
        what = f"{record.topic}/{record.partition} at {record.offset} cannot be applied: {reason}"
        if not self._leave_out_bad:
            raise RebuildError(f"{what}. Mend the handler, or start it again with --leave-out")
        self._left_out += 1
        if self._left_out > LEFT_OUT:
            raise RebuildError(f"more than {LEFT_OUT} records would be left out. {what}")
        self._say(f"left out: {what}")
        await self._advance([record], dead_lettered=True)

    async def _apply(self, chunk: Sequence[Read]) -> None:
        messages: list[Message[Event]] = []
        for _, outcome in chunk:
            if isinstance(outcome, Poison):
                raise ValueError(outcome.reason)
            if isinstance(outcome, Message):
                messages.append(outcome)
        if messages:
            await self._view.handle(_Reading(self._db), messages)
        await self._advance([record for record, _ in chunk])

    async def _advance(self, records: Sequence[Record], *, dead_lettered: bool = False) -> None:
        """The last statement of a transaction: if its commit fails, so does the rebuild, and the next reads anew."""
        steps: dict[Place, Step] = {}
        for record in records:
            place = (record.topic, record.partition)
            step = steps.setdefault(place, Step(self._at[place], 0))
            step.applied += not dead_lettered
            step.dead_lettered += dead_lettered
            step.new = record.offset + 1
        await progress.advance(self._db, self._view.name, steps)
        self._at |= {place: step.new for place, step in steps.items()}
        self._events += len(records)
