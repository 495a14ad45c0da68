"""The two streams and what they publish: orders to lines by SKU, lines to units per window, windows to the signal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID, uuid5

from prometheus_client import Counter

from services.pricing.demand import decisions
from services.pricing.demand.decisions import Changes, Count, Position, Recency, Window
from services.pricing.demand.engine import Engine
from services.pricing.demand.settings import DemandSettings
from shared import envelope
from shared.envelope import Headers, Record
from shared.events.order import OrderPlaced
from shared.events.pricing import LineDemanded
from shared.health import Health
from shared.messages import Cause, E, Message, Topic, event_id
from shared.telemetry import LAG, MESSAGES, log
from shared.topics import DEMAND, DEMAND_LINES, ORDERS

NAME = "isthmus.pricing.demand"
POSITION = "ce_position"  # of the line in the log of orders: an extension attribute between the two streams
PUBLISH_SECONDS = 1.0
STUCK_SECONDS = 60.0
FORGOTTEN = Counter(
    "isthmus_demand_windows_forgotten",
    "Windows no longer counted, by why; one that gets another line begins again from zero",
    ["reason"],
)  # old, no room
_PLACED = ORDERS.type_of(OrderPlaced).encode()
_SIGNAL = UUID("6b1f2c1e-64a1-4f0e-9f2e-0d7a3b0e5c11")


class Demand:
    """Counts what is asked for. All of its state is the table; the rest follows from it."""

    def __init__(self, settings: DemandSettings, health: Health):
        self._window_seconds, self._generation = settings.demand_window_seconds, settings.demand_generation
        self._health = health
        self._changes = Changes()
        self._recency = Recency()
        self._handled = 0
        self.engine = Engine(
            NAME, settings.kafka_bootstrap_servers, generation=settings.demand_generation, member=settings.replica,
            replication_factor=settings.demand_replication_factor, keyed_by=DEMAND_LINES,
            on_recovered=self._recovered,
        )  # fmt: skip
        self.engine.read(ORDERS, self._rekey)
        self.engine.read(DEMAND_LINES, self._count)

    # -- streams --------------------------------------------------------------------------------------------------

    async def _rekey(self, record: Record) -> None:
        """An order's lines, each to the partition of its SKU."""
        self._handled += 1
        if dict(record.headers).get("ce_type") != _PLACED:
            return
        message = envelope.read(record, ORDERS)
        if not isinstance(message, Message) or not isinstance(message.event, OrderPlaced):
            MESSAGES.labels("rekey_lines", "skipped").inc()  # unreadable: those who must act on it set it aside
            return
        for number, line in enumerate(decisions.lines_of(message.event)):
            at = Position(record.partition, record.offset, number)
            id_ = event_id(message.id, DEMAND_LINES.type_of(LineDemanded), line.sku, number)
            headers = [*headers_for(DEMAND_LINES, line, id_, message), (POSITION, str(at).encode())]
            await self.engine.send(DEMAND_LINES, line.sku, line.model_dump_json().encode(), headers)
        MESSAGES.labels("rekey_lines", "applied").inc()

    async def _count(self, record: Record) -> None:
        """One more line in its window, unless it was counted before."""
        self._handled += 1
        message, at = envelope.read(record, DEMAND_LINES), _position(record)
        if at is None or not isinstance(message, Message) or not isinstance(message.event, LineDemanded):
            MESSAGES.labels("count_lines", "skipped").inc()  # nothing of ours
            return
        window = decisions.window_of(message.event, self._window_seconds)
        table, now = self.engine.table, time.time()
        kept = table.get(window)
        known = decisions.count(kept and decisions.from_json(kept), message.event, at, record.partition, now)
        MESSAGES.labels("count_lines", "duplicate" if known is None else "applied").inc()
        if known is None:
            return
        table[window] = decisions.to_json(known)
        self._changes.note([window])
        for old in self._recency.touch(record.partition, window, now):
            self._forget(old, now)

    def _forget(self, window: Window, now: float) -> None:
        kept = self.engine.table.pop(window, None)
        if kept is not None:
            old = decisions.from_json(kept).touched_at < now - decisions.KEEP_SECONDS
            FORGOTTEN.labels("old" if old else "no room").inc()

    def _recovered(self) -> None:
        counts = self._counts()
        self._recency = Recency(counts)
        self._changes.note(decisions.to_say_again(counts))
        log.info("windows read back", windows=len(counts))

    def _counts(self) -> Mapping[Window, Count]:
        return {Window(*key): decisions.from_json(kept) for key, kept in self.engine.table.items()}

    # -- the signal -----------------------------------------------------------------------------------------------

    async def publish_changes(self) -> int:
        """Every window that changed, once; returns how many. One that was forgotten meanwhile says nothing."""
        changed = self._changes.take()
        for window in changed:
            kept = self.engine.table.get(window)
            if kept is None:
                continue
            event = decisions.measured(window, decisions.from_json(kept), self._generation)
            now = datetime.now(UTC)
            # With the time: counting anew says the same numbers again, and consumers would take them for repeats.
            id_ = uuid5(_SIGNAL, f"{window}/{event.units}/{event.orders}/{now.isoformat()}")
            cause = Cause(id=id_, correlation_id=str(id_))
            headers = headers_for(DEMAND, event, id_, cause, now)
            await self.engine.send(DEMAND, window.sku, event.model_dump_json().encode(), headers)
        MESSAGES.labels("publish_demand", "applied").inc(len(changed))
        return len(changed)

    async def publish(self) -> None:
        """About once a second, until cancelled.

        Liveness is progress: not ready, or behind and nothing handled, is no beat. Whether anything is behind is known
        only once it is ready.
        """
        handled = -1
        while True:
            started = time.monotonic()
            if error := self.engine.crash():
                raise error
            await self.publish_changes()
            lag = self.engine.lag()
            for (topic, behind), stream in zip(lag.items(), ("rekey_lines", "count_lines"), strict=True):
                LAG.labels(stream, topic).set(behind)
            if self.engine.unready() is None and (not any(lag.values()) or self._handled != handled):
                self._health.beat("demand", within=STUCK_SECONDS)
            handled = self._handled
            await asyncio.sleep(max(0.0, PUBLISH_SECONDS - (time.monotonic() - started)))


def _position(record: Record) -> Position | None:
    try:
        return Position.parse(dict(record.headers)[POSITION].decode())
    except (KeyError, ValueError):
        return None


def headers_for(topic: Topic[E], event: E, id_: UUID, cause: Cause, at: datetime | None = None) -> Headers:
    """The envelope of a signal: it is sequence 1 each time, which no consumer takes for a gap."""
    return envelope.headers_for(
        id=id_, source=topic.source, type=topic.type_of(type(event)), recorded_at=at or datetime.now(UTC),
        key=topic.key_of(event), sequence=1, correlation_id=cause.correlation_id,
        causation_id=str(cause.id) if cause.id != id_ else None, traceparent=str(cause.trace.child()),
    )  # fmt: skip
