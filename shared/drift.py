"""Do tables and log agree? A service's versions against the last sequences that its own topics show.

The outbox makes them agree; this is the alarm for the day on which something has not: an event that got lost on its
way, a second writer, a database of another day. It is said and shown, never mended: what others have heard cannot be
taken back by machine. Only the relay's process looks, so that of several replicas one does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from shared import kafka
from shared.envelope import Record
from shared.kafka import Place
from shared.messages import Topic
from shared.postgres import Connection, Database
from shared.telemetry import DRIFT, RECONCILED, log
from shared.work import Worker

REMEMBERED = 20_000  # entities whose last sequence is known: those that spoke last
MOST_RECORDS = 100_000  # read in one turn; with more to read, what was remembered is forgotten
KINDS = ("log_behind", "log_ahead")

WAITING = "SELECT aggregateid FROM outbox WHERE aggregatetype = $1 AND aggregateid = ANY($2::text[])"

Entity = tuple[str, str]  # topic, key


@dataclass(frozen=True)
class Versions:
    """Where the entities of ``topic`` have their version: ``query`` takes keys and returns ``key`` and ``version``.

    ``key`` reads a record's key; for what is none it raises ValueError.
    """

    topic: Topic[Any]
    query: str
    key: Callable[[str], Any] = UUID


@dataclass
class Agreement:
    """What the log has shown of late, and in what the tables differ from it. No I/O."""

    last: OrderedDict[Entity, int] = field(default_factory=OrderedDict[Entity, int])
    owed: dict[Entity, int] = field(default_factory=dict[Entity, int])  # versions that must be in the log by now
    drift: dict[Entity, str] = field(default_factory=dict[Entity, str])  # kind

    def hear(self, records: Iterable[Record]) -> None:
        """Note the sequences of these records; what has none is not ours."""
        for record in records:
            sequence = next((value for name, value in record.headers if name == "ce_sequence"), b"")
            if record.key and sequence.isdigit():
                entity = record.topic, record.key.decode(errors="replace")
                self.last[entity] = max(self.last.pop(entity, 0), int(sequence))
        while len(self.last) > REMEMBERED:
            gone, _ = self.last.popitem(last=False)
            self.drift.pop(gone, None)

    def settle(self) -> None:
        """All is heard that was owed: what did not come is lost."""
        for entity, version in self.owed.items():
            if version > self.last.get(entity, version):
                self._drifts(entity, "log_behind", version)
            elif self.drift.get(entity) == "log_behind":
                del self.drift[entity]
        self.owed.clear()

    def compare(self, topic: str, versions: Mapping[str, int], waiting: set[str]) -> None:
        """``versions`` of entities, read after what was heard; those of ``waiting`` have events in the outbox."""
        for key, version in versions.items():
            entity = topic, key
            heard = self.last.get(entity)
            if heard is None:
                continue
            if heard > version:  # a version is raised before it is said
                self._drifts(entity, "log_ahead", version)
            elif self.drift.get(entity) == "log_ahead":
                del self.drift[entity]
            if key not in waiting and (version > heard or entity in self.drift):
                self.owed[entity] = version

    def forget(self) -> None:
        self.last.clear()
        self.owed.clear()
        self.drift.clear()

    def _drifts(self, entity: Entity, kind: str, version: int) -> None:
        if self.drift.get(entity) != kind:
            topic, key = entity
            log.warning("drift", kind=kind, topic=topic, key=key, version=version, log=self.last.get(entity))
            self.drift[entity] = kind


class Watch:
    """Reads what the service's topics got since the last turn, and compares the versions of those who spoke."""

    def __init__(
        self, versions: Sequence[Versions], database: Database, bootstrap_servers: str, leads: Callable[[], bool]
    ):
        self._versions = {one.topic.name: one for one in versions}
        self._database, self._bootstrap_servers, self._leads = database, bootstrap_servers, leads
        self._read: dict[Place, int] | None = None  # the next offset by partition; None: nothing was read yet
        self.agreement = Agreement()

    async def turn(self) -> bool:
        """The first turn begins at the end of the log, and so does one after Kafka was away."""
        try:
            if self._leads():
                await self._look()
            else:
                self._read = None
                self.agreement.forget()
        except kafka.KafkaError as error:
            log.warning("the log cannot be read; compared later", reason=f"{type(error).__name__}: {error}")
        for kind in KINDS:
            DRIFT.labels(kind).set(sum(1 for one in self.agreement.drift.values() if one == kind))
        return False

    async def _look(self) -> None:
        bounds = await kafka.bounds(self._bootstrap_servers, self._versions)
        await self._hear({place: end for place, (_, end) in bounds.items()})
        self.agreement.settle()
        async with self._database.reading() as db:
            for name in self._versions:
                await self._compare(db, name)

    async def _hear(self, ends: Mapping[Place, int]) -> None:
        begin = {place: self._read.get(place, 0) for place in ends} if self._read is not None else ends
        if self._read is None or sum(end - begin[place] for place, end in ends.items()) > MOST_RECORDS:
            self.agreement.forget()  # sequences that were passed over would look lost
            begin = ends
        self._read = None  # until all of it is heard: otherwise some was passed over
        if begin != ends:
            async for record in kafka.read_range(self._bootstrap_servers, begin, ends):
                self.agreement.hear([record])
        self._read = dict(ends)

    async def _compare(self, db: Connection, name: str) -> None:
        keys = {key: read for topic, key in self.agreement.last if topic == name and (read := self._key(name, key))}
        if not keys:
            return
        rows = await db.fetch(self._versions[name].query, list(keys.values()))
        versions = dict.fromkeys(keys, 0) | {str(row["key"]): row["version"] for row in rows}
        waiting = {row["aggregateid"] for row in await db.fetch(WAITING, name, list(keys))}
        self.agreement.compare(name, versions, waiting)
        RECONCILED.labels("versions").inc(len(versions))

    def _key(self, name: str, key: str) -> Any:
        try:
            return self._versions[name].key(key)
        except ValueError:
            return None


def watch(
    versions: Sequence[Versions], database: Database, bootstrap_servers: str, leads: Callable[[], bool], every: float
) -> list[Worker]:
    """The worker of a service that has ``versions``; none where ``every`` (seconds) is 0."""
    if not versions or not every:
        return []
    turn: Callable[[], Awaitable[bool]] = Watch(versions, database, bootstrap_servers, leads).turn
    return [Worker("watch the log", turn, every=every)]
