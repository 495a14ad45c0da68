"""What happened to an order, in every service, and why: pure functions of what the order and Kafka say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.envelope import Record
from shared.messages import Topic, event_id
from shared.topics import ALL_TOPICS, ORDERS

OF_ORDERS: Sequence[Topic[Any]] = [topic for topic in ALL_TOPICS if topic.key == "order_id"]
OWNERS: Mapping[str, str] = {event.__name__: topic.owner for topic in OF_ORDERS for event in topic.events.values()}


@dataclass(frozen=True)
class Named:
    """An event, as far as a cause is told by it."""

    type: str
    service: str

    def __str__(self) -> str:
        return f"{self.type}, {self.service}"


@dataclass(frozen=True)
class Happened:
    """An event of the order; ``cause`` is the id of what brought it about."""

    id: UUID
    service: str
    type: str
    sequence: int
    recorded_at: datetime
    cause: UUID | None

    @property
    def named(self) -> Named:
        return Named(self.type, self.service)


def of_order(order_id: UUID, steps: Iterable[Mapping[str, Any]]) -> list[Happened]:
    """The steps of the order's own timeline; what happened elsewhere has no sequence there, and names itself as cause.

    Ids of its own events are worked out as publishing does it: from cause, type and key.
    """
    found: list[Happened] = []
    ordinals: Counter[tuple[str, str]] = Counter()
    for step in steps:
        type_, cause, at = step["type"], UUID(step["cause"]), datetime.fromisoformat(step["recorded_at"])
        if step["sequence"] is None:
            found.append(Happened(cause, OWNERS.get(type_, "elsewhere"), type_, 0, at, None))
            continue
        ordinal = ordinals[step["cause"], type_]
        ordinals[step["cause"], type_] += 1
        id_ = event_id(cause, f"isthmus.{ORDERS.owner}.{type_}.v1", str(order_id), ordinal)
        found.append(Happened(id_, ORDERS.owner, type_, step["sequence"], at, cause))
    return found


def of_kafka(records: Iterable[Record]) -> list[Happened]:
    """The events that these records are, each once; what is none of ours is left out."""
    found: dict[UUID, Happened] = {}
    for record in records:
        try:
            told = {name: (value or b"").decode() for name, value in record.headers}
            _, service, type_, _ = told["ce_type"].split(".")
            cause = UUID(told["ce_causationid"]) if "ce_causationid" in told else None
            at = datetime.fromisoformat(told["ce_time"])
            happened = Happened(UUID(told["ce_id"]), service, type_, int(told["ce_sequence"]), at, cause)
        except (KeyError, ValueError):
            continue
        found.setdefault(happened.id, happened)
    return list(found.values())


def merged(own: Sequence[Happened], others: Sequence[Happened]) -> list[Happened]:
    """One timeline, by time: the order's word counts for its own events, Kafka's for those of other services.

    What the order service said beside the order's own events, in the same transaction, gets their time.
    """
    told = {(one.type, one.sequence): one.id for one in others if one.service == ORDERS.owner}
    own = [replace(one, id=told.get((one.type, one.sequence), one.id)) for one in own]
    mine = {one.id: one for one in own if one.service == ORDERS.owner}
    times = {one.cause: one.recorded_at for one in mine.values()}
    found = {one.id: one for one in own} | {
        one.id: replace(one, recorded_at=times.get(one.cause, one.recorded_at)) if one.service == ORDERS.owner else one
        for one in others
        if one.id not in mine
    }
    return sorted(found.values(), key=lambda one: one.recorded_at)  # at the same time: own events first, as they came


def causes(order_id: UUID, events: Sequence[Happened]) -> dict[UUID, Named]:
    """The events that are causes of others, by id.

    Known ones first. The rest is worked out: ids derive from cause, type and key, so an unseen answer of another
    service has the id that its question gives it. What stays unnamed is no event: a request, a timer, the word of
    somebody outside.
    """
    known = {one.id: one.named for one in events}
    missing = {one.cause for one in events if one.cause is not None} - known.keys()
    seeds: Iterable[UUID] = missing | known.keys()
    for _ in range(2):  # an answer, and the answer to it
        if not missing:
            break
        answers = dict(_answers(order_id, seeds))
        known |= {id_: answers[id_] for id_ in missing & answers.keys()}
        missing -= answers.keys()
        seeds = answers
    return known


def reasons(events: Sequence[Happened], names: Mapping[UUID, Named]) -> dict[UUID, str]:
    """In words, why each event happened, by its id.

    Where the cause is no event, the first of its events says so, and those that came with it name that one.
    """
    said: dict[UUID, str] = {}
    first: dict[UUID, Happened] = {}
    for one in events:
        if one.cause is None:
            said[one.id] = ""
        elif one.cause in names:
            said[one.id] = str(names[one.cause])
        elif one.cause in first and first[one.cause].service == one.service:
            said[one.id] = f"same as {first[one.cause].type}"
        else:
            first[one.cause] = one
            said[one.id] = f"no event: request, timer, call ({str(one.cause)[:8]})"
    return said


def _answers(order_id: UUID, ids: Iterable[UUID]) -> Iterable[tuple[UUID, Named]]:
    """Every event of other services that these could have caused; the order's own are in its timeline."""
    for cause in ids:
        for topic in OF_ORDERS:
            if topic is not ORDERS:
                for type_, event in topic.events.items():
                    yield event_id(cause, type_, str(order_id), 0), Named(event.__name__, topic.owner)
