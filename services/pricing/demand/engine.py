"""Faust, typed and tamed: only this module touches it. It brings few types, and its defaults are set right here."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUntypedFunctionDecorator=false, reportAttributeAccessIssue=false

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, cast

import faust
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from services.pricing.demand.reader import Place, Reader
from shared.envelope import Headers, Record
from shared.messages import DAY_MS, Topic
from shared.telemetry import log
from shared.topics import LARGE

Handle = Callable[[Record], Awaitable[None]]
TABLE = "windows"
SESSION_SECONDS = 8.0
CHANGELOG_SEGMENT_MS = 600_000  # only ended segments are compacted: they bound how much a start reads back
CHANGELOG_RETENTION_MS = 7 * DAY_MS  # longer than a window is ever remembered


class Engine:
    """Streams with a table: handlers get one record after the other, and what they put into the table outlives them.

    At least once: offsets are committed some seconds after the handlers, once what they sent is acknowledged. The table
    lives in memory; each of its changes goes to a compacted topic of Kafka, from which it is read back at the start.
    ``failed`` ends with the first error that Faust would have gone on after; the process is to end then, and to begin
    again from its offsets.
    """

    def __init__(
        self, name: str, bootstrap_servers: str, *, generation: int, member: str, replication_factor: int,
        keyed_by: Topic[Any], on_recovered: Callable[[], None],
    ):  # fmt: skip
        """``generation`` names the group and the table: another one begins with neither.

        The table is kept by ``keyed_by``: what its handler changes belongs to the partition of the record at hand.
        """
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._bootstrap_servers, self._replication_factor = bootstrap_servers, replication_factor
        self._sources: list[Topic[Any]] = []
        self._topics: dict[str, Any] = {}
        self._next: dict[Place, int] = {}  # offsets, per partition
        self._scratch = tempfile.TemporaryDirectory(prefix="faust-")  # Faust insists on a directory; it stays empty
        for library in ("faust", "mode"):
            logging.getLogger(library).setLevel(logging.WARNING)  # it tells of every step it takes
        self._app: Any = faust.App(
            name,
            version=generation,
            broker=f"kafka://{bootstrap_servers.replace(',', ';kafka://')}",
            store="memory://",
            datadir=Path(self._scratch.name),
            autodiscover=False,
            web_enabled=False,
            topic_allow_declare=False,  # nothing is created in passing
            topic_disable_leader=True,
            processing_guarantee="at_least_once",
            broker_client_id=member,
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=LARGE,  # per partition; with the default of 1 MiB it reads at a third of the rate
            broker_commit_interval=1.0,
            # No static membership: the broker would hand a restarted member the assignment of its first start, even one
            # from before the table's topic was known. So a crash costs this long, until its partitions are free.
            broker_session_timeout=SESSION_SECONDS,
            broker_heartbeat_interval=2.0,
            broker_request_timeout=30.0,
            producer_acks=-1,
            producer_linger=0.005,
            producer_max_request_size=LARGE,
            stream_wait_empty=False,
            stream_recovery_delay=0.0,
            table_standby_replicas=0,
        )
        self._table: Any = self._app.Table(TABLE, partitions=keyed_by.partitions)
        self._reader = Reader(bootstrap_servers, self._app.conf.id)

        async def recovered() -> None:
            """After every assignment, before records flow. Faust drops what is raised here."""
            try:
                self._forget_lost()
                given = {(place.topic, place.partition) for place in self._app.consumer.assignment()}
                self._next = await self._reader.left_at(place for place in given if place[0] in self._topics)
                on_recovered()
            except Exception as error:
                self._fail(error)

        self._table.on_recover(recovered)

    @property
    def table(self) -> MutableMapping[Any, Any]:
        """Keys and values as JSON; written in the handler of ``keyed_by`` only."""
        return cast("MutableMapping[Any, Any]", self._table)

    # -- streams --------------------------------------------------------------------------------------------------

    def read(self, topic: Topic[Any], handle: Handle) -> None:
        """Hand every record of the topic to ``handle``, one at a time."""
        self._sources.append(topic)

        async def agent(stream: Any) -> None:
            async for event in stream.events():
                try:
                    await self._take(event.message, handle)
                except Exception as error:
                    self._fail(error)
                    await asyncio.Event().wait()  # the record is not acknowledged

        self._app.agent(self._topic(topic.name), name=f"{topic.name}.agent", concurrency=1)(agent)

    async def _take(self, record: Record, handle: Handle) -> None:
        """In log order, none twice and none left out.

        Around a recovery Faust drops records that it has fetched, acknowledges them, and goes on behind them: the hole
        is read from the log.
        """
        place = (record.topic, record.partition)
        expected = self._next.get(place, record.offset)
        if record.offset < expected:
            return  # fetched again
        if record.offset > expected:
            log.warning("passed over", place=place, at=expected, to=record.offset)
            for missed in await self._reader.between(place, expected, record.offset):
                await handle(missed)
        await handle(record)
        self._next[place] = record.offset + 1

    async def send(self, topic: Topic[Any], key: str, value: bytes, headers: Headers) -> None:
        """Hand over one record; ``failed`` ends if it is not acknowledged."""
        channel = self._topic(topic.name)
        sent = await channel.send(key=key.encode(), value=value, headers=list(headers), callback=self._sent)
        del sent

    def _topic(self, name: str) -> Any:
        if name not in self._topics:
            self._topics[name] = self._app.topic(name, key_serializer="raw", value_serializer="raw", allow_empty=True)
        return self._topics[name]

    def _sent(self, promise: Any) -> None:
        if error := promise.exception():
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when the table is read back and records flow."""
        await self._create_changelog()
        await self._app.start()
        if not self._mine():
            raise RuntimeError(f"no partitions of {self._table.changelog_topic_name}: the table was not read back")

    async def _create_changelog(self) -> None:
        """Faust would create it in passing, and with it whatever else it misses."""
        topic = NewTopic(
            self._table.changelog_topic_name, self._table.partitions, self._replication_factor,
            topic_configs={
                "cleanup.policy": "compact,delete",
                "retention.ms": str(CHANGELOG_RETENTION_MS),
                "segment.ms": str(CHANGELOG_SEGMENT_MS),
                "min.cleanable.dirty.ratio": "0.1",
            },
        )  # fmt: skip
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap_servers)
        await admin.start()
        try:
            answer = cast(Any, await admin.create_topics([topic]))
        finally:
            await admin.close()
        for name, code, *_ in answer.topic_errors:
            if code and for_code(code) is not TopicAlreadyExistsError:
                raise for_code(code)(f"topic {name} could not be created")

    async def stop(self) -> None:
        """What was handled and not yet committed comes again at the next start."""
        await self._app.stop()
        self._scratch.cleanup()

    def unready(self) -> str | None:
        """What it waits for; None when records flow."""
        app = self._app
        if not app.started or app.rebalancing or not app.tables.recovery.completed.is_set():
            return "its table is being read back"
        given = {place.topic for place in app.consumer.assignment()}
        missing = [topic.name for topic in self._sources if topic.name not in given]
        return f"no partitions of {', '.join(missing)}" if missing else None

    def crash(self) -> BaseException | None:
        """Why Faust gave up, if it did."""
        return cast("BaseException | None", self._app.crash_reason)

    def lag(self) -> dict[str, int]:
        """Records not yet handled, per topic, as of the last fetch."""
        behind = {topic.name: 0 for topic in self._sources}
        if self.unready() is not None:
            return behind
        for place in self._app.consumer.assignment():
            end = self._app.consumer.highwater(place)
            if place.topic in behind and end:
                behind[place.topic] += max(0, end - self._next.get((place.topic, place.partition), end))
        return behind

    def _forget_lost(self) -> None:
        """What belongs to partitions that another process has now: Faust keeps it for ever."""
        mine = self._mine()
        for key in [key for key, kept in self._table.items() if kept["partition"] not in mine]:
            self._table.data.data.pop(key, None)

    def _mine(self) -> set[int]:
        """The partitions of the table that are kept here."""
        changelog = self._table.changelog_topic_name
        return {place.partition for place in self._app.assignor.assigned_actives() if place.topic == changelog}
