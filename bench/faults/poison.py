"""Messages that no service should have written, and who must have put them aside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from bench.foreign import put
from shared.consume import Subscription
from shared.contracts.services import all_parts
from shared.events.inventory import StockReleased
from shared.events.order import OrderPlaced
from shared.events.pricing import OrderPriced
from shared.kafka import read_all
from shared.messages import Topic
from shared.topics import HOLDS, ORDERS, QUOTES, SERVICES, dead_letters

Place = tuple[str, str, int, int]  # consumer, topic, partition, offset
Content = tuple[Topic[Any], str, bytes]  # topic, type, value

BIG = 1_000_000  # bytes


def _bad_json(_: UUID) -> Content:
    return ORDERS, ORDERS.type_of(OrderPlaced), b'{"order_id": '


def _invalid(_: UUID) -> Content:
    return QUOTES, QUOTES.type_of(OrderPriced), b'{"order_id": "not an id"}'


def _big(_: UUID) -> Content:
    return ORDERS, ORDERS.type_of(OrderPlaced), b'{"note": "' + b"x" * BIG + b'"}'


def _raises(order_id: UUID) -> Content:
    """A faultless event about an order that is not there: the handler of order raises."""
    event = StockReleased(occurred_at=datetime.now(UTC), order_id=order_id, allocations=())
    return HOLDS, HOLDS.type_of(StockReleased), event.model_dump_json().encode()


def _unknown(_: UUID) -> Content:
    return ORDERS, "isthmus.order.OrderTeleported.v1", b"{}"


KINDS: Mapping[str, tuple[Callable[[UUID], Content], Sequence[str] | None]] = {  # and who puts it aside; None: all
    "bad JSON": (_bad_json, None),
    "invalid known type": (_invalid, None),
    "1 MB": (_big, None),
    "handler raises": (_raises, ("order.join_answers",)),
    "unknown type": (_unknown, ()),
}


@dataclass
class Poisoner:
    """Injects; remembers what must lie among the dead letters."""

    bootstrap_servers: str
    ids: set[str] = field(default_factory=set[str])
    expected: set[Place] = field(default_factory=set[Place])
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    _consumers: Sequence[tuple[str, Subscription]] = ()

    async def prepare(self) -> None:
        parts_of = await asyncio.to_thread(all_parts)  # it has an event loop of its own
        self._consumers = [
            (service, one) for service, parts in parts_of.items() for one in parts.consumers.subscriptions
        ]

    async def inject(self, key: str, number: int) -> None:
        """One message, of the kinds in turn, under ``key``; returns when Kafka has it."""
        kind = list(KINDS)[number % len(KINDS)]
        make, readers = KINDS[kind]
        topic, type_, value = make(uuid4())
        id_, at = await put(self.bootstrap_servers, topic, type_, key, value)
        self.ids.add(str(id_))
        self.counts[kind] += 1
        for reader in self._readers(topic.name, type_) if readers is None else readers:
            self.expected.add((reader, topic.name, at.partition, at.offset))

    def _readers(self, topic: str, type_: str) -> Sequence[str]:
        return [
            f"{service}.{one.name}" for service, one in self._consumers
            if any(one_.name == topic for one_ in one.topics) and (one.hears is None or type_ in one.hears)
        ]  # fmt: skip


async def put_aside(bootstrap_servers: str) -> list[Place]:
    """Where every dead letter of the platform came from."""
    found: list[Place] = []
    for record in await read_all(bootstrap_servers, [dead_letters(service) for service in SERVICES]):
        headers = {name: (value or b"").decode() for name, value in record.headers if name.startswith("dlq_")}
        place = headers["dlq_topic"], int(headers["dlq_partition"]), int(headers["dlq_offset"])
        found.append((headers["dlq_consumer"], *place))
    return found
