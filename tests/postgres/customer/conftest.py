"""A customer service with its keys, for its tests on a real database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest

from services.customer import handlers, sealing_keys
from services.customer.keyring import Keyring
from services.customer.people import Masks
from shared.events.order import BuyerSealed, OrderCancelled, OrderSettled, SealingKeyRetired
from shared.messages import Message, Topic
from shared.postgres import Database
from shared.sealing import Buyer, Recipient, SealedBuyer, seal
from shared.topics import IDENTIFICATIONS, INTAKE, ORDERS, RETIRED_KEYS, SEALING_KEYS

NAMESPACE = UUID(int=0x15)
NOON = datetime(2010, 12, 1, 12, tzinfo=UTC)
RECORDED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
MASKS = Masks((r".+@marketplace\.example",))
NEW_CUSTOMER = """
INSERT INTO customers (customer_id, version, channel, tier, guest, points_balance, data_key, registered_at)
VALUES ($1, 1, 'store', 'base', $2, $3, $4, $5)
"""
GOODWILL = """
INSERT INTO points_entries (entry_id, customer_id, points, kind, reason, actor, occurred_at)
VALUES ($1, $2, $3, 'goodwill', '', 'test', $4)
"""
RECIPIENT = Recipient(name="Zelda Quist", street="Larkspur Lane 77", city="Ulm", postal_code="89073", country="DE")


@dataclass
class World:
    """A customer service with its keys, and hands to give it messages and look at what it did."""

    database: Database
    keyring: Keyring
    key_id: UUID
    public_key: str

    def sealed(self, order: str, buyer: Buyer | None = None, **more: Any) -> Message[Any]:
        """The message that an order's buyer arrives in; ``order`` is any word."""
        content = SealedBuyer(
            order_id=order_id(order), buyer=buyer or Buyer(), recipient=RECIPIENT, note=more.pop("note", None)
        )
        event: dict[str, Any] = {
            "key_id": self.key_id,
            "channel": "bazaar",
            "sealed": seal(self.public_key, content),
            **more,
        }
        return message(INTAKE, BuyerSealed(occurred_at=NOON, order_id=order_id(order), **event))

    def cancelled(self, order: str) -> Message[Any]:
        return message(ORDERS, OrderCancelled(occurred_at=NOON, order_id=order_id(order)), sequence=2)

    def settled(self, order: str, amount: int, at: datetime = NOON, customer: UUID | None = None) -> Message[Any]:
        event = OrderSettled(
            occurred_at=at, order_id=order_id(order), customer_id=customer or UUID(int=7), amount=Decimal(amount),
            currency="EUR",
        )  # fmt: skip
        return message(ORDERS, event, sequence=9)

    async def take(self, *batch: Message[Any], keyring: Keyring | None = None) -> None:
        """Give the service a batch, in one transaction."""
        consumers = handlers.build(keyring or self.keyring, MASKS)
        async with self.database.transaction() as tx:
            await consumers.subscriptions[0].handle(tx, batch)

    async def retire(self, key_id: UUID) -> None:
        consumers = handlers.build(self.keyring, MASKS)
        event = SealingKeyRetired(occurred_at=NOON, key_id=key_id, retired_at=NOON)
        async with self.database.transaction() as tx:
            await consumers.subscriptions[1].handle(tx, [message(RETIRED_KEYS, event)])

    async def said(self, topic: Topic[Any]) -> list[tuple[Any, int]]:
        """What waits in the outbox for this topic, with its sequences."""
        async with self.database.reading() as db:
            rows = await db.fetch("SELECT * FROM outbox WHERE aggregatetype = $1 ORDER BY position", topic.name)
        return [(topic.events[row["type"]].model_validate_json(row["payload"]), row["sequence"]) for row in rows]

    async def answer(self, order: str) -> Any:
        """The last thing said about an order."""
        return [event for event, _ in await self.said(IDENTIFICATIONS) if event.order_id == order_id(order)][-1]

    async def rows(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        async with self.database.reading() as db:
            return [tuple(row) for row in await db.fetch(sql, *arguments)]

    async def customer(self, balance: int = 0, *, guest: bool = False) -> UUID:
        """A customer who has ``balance`` points."""
        id_ = uuid4()
        _, wrapped = self.keyring.new_data_key(id_)
        async with self.database.transaction() as tx:
            await tx.db.execute(NEW_CUSTOMER, id_, guest, balance, wrapped, NOON)
            if balance:
                await tx.db.execute(GOODWILL, uuid4(), id_, balance, NOON)
        return id_


def order_id(order: str) -> UUID:
    return uuid5(NAMESPACE, order)


def message(topic: Topic[Any], event: Any, sequence: int = 1) -> Message[Any]:
    id_ = uuid5(NAMESPACE, event.model_dump_json())
    return Message(
        id=id_, correlation_id=str(id_), event=event, topic=topic.name, key=topic.key_of(event), sequence=sequence,
        recorded_at=RECORDED_AT,
    )  # fmt: skip


@pytest.fixture
async def world(database: Database) -> World:
    keyring = Keyring(b"m" * 32)
    async with database.transaction() as tx:
        key_id = await sealing_keys.rotate(tx, keyring, timedelta(hours=24))
    assert key_id is not None
    world = World(database, keyring, key_id, "")
    ((published, _),) = await world.said(SEALING_KEYS)
    world.public_key = published.public_key
    return world
