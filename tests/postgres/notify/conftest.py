"""A notify service with a real mail server, and a stand-in for what the customer service answers over HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiosmtpd.controller import Controller
from fastapi import FastAPI, Response
from pydantic import BaseModel

from services.notify import handlers, messages
from services.notify.mailing import Mailing
from services.notify.settings import NotifySettings
from shared.events.order import Destination, OrderCancelled, OrderConfirmed, OrderLine, OrderPlaced, OrderSettled
from shared.messages import Message, Topic
from shared.postgres import Database, Row
from shared.topics import CARE, IDENTIFICATIONS, ORDERS
from tests.support.http import listening

NOW = datetime.now(UTC).replace(microsecond=0)
ANNA = UUID(int=0xA)


@dataclass
class Post:
    """A mail server on a port of its own. ``to_recipient`` and ``to_data`` are what it answers; ``drops``: it takes
    the content and is gone without a word. ``connections``: how many there have been."""

    port: int
    mails: list[EmailMessage] = field(default_factory=list[EmailMessage])
    to_recipient: str = "250 OK"
    to_data: str = "250 OK"
    drops: bool = False
    answers_after: float = 0  # seconds, to a recipient
    connections: int = 0
    _controller: Controller | None = None
    _transports: list[asyncio.Transport] = field(default_factory=list[asyncio.Transport])

    def open(self) -> None:
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    def close(self) -> None:
        if self._controller is not None:
            self.hang_up()
            self._controller.stop()
            self._controller = None

    def hang_up(self) -> None:
        """Close every connection, and take new ones."""
        assert self._controller is not None
        for transport in self._transports:
            self._controller.loop.call_soon_threadsafe(transport.abort)
        self._transports.clear()

    async def handle_EHLO(  # noqa: N802 - what aiosmtpd calls it
        self, server: Any, session: Any, _envelope: Any, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.connections += 1
        self._transports.append(server.transport)
        return responses

    async def handle_RCPT(  # noqa: N802 - what aiosmtpd calls it
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        await asyncio.sleep(self.answers_after)
        if self.to_recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.to_recipient

    async def handle_DATA(self, server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - likewise
        if self.drops:
            server.transport.abort()
            raise ConnectionAbortedError
        if self.to_data.startswith("250"):
            self.mails.append(message_from_bytes(envelope.content, policy=default))
        return self.to_data


class Asked(BaseModel):
    customer_id: UUID
    purpose: str
    order_id: UUID


@dataclass
class Customers:
    """What the customer service answers, and what it was asked."""

    contact: dict[str, Any] | None = field(
        default_factory=lambda: {"name": "Anna Oz", "email": "anna@home.example", "allowed": True, "reason": None}
    )
    status: int = 200
    refuses_several: bool = False  # as when one of them has data that cannot be read
    requests: int = 0
    asked: list[tuple[UUID, str, UUID]] = field(default_factory=list[tuple[UUID, str, UUID]])

    def app(self) -> FastAPI:
        app = FastAPI()

        async def token() -> dict[str, Any]:
            return {"access_token": "ours", "expires_in": 300}

        async def lookups(body: list[Asked], response: Response) -> list[dict[str, Any] | None]:
            self.requests += 1
            response.status_code = 500 if self.refuses_several and len(body) > 1 else self.status
            if response.status_code == 200:
                self.asked += [(one.customer_id, one.purpose, one.order_id) for one in body]
            return [self.contact] * len(body)

        app.add_api_route("/token", token, methods=["POST"])
        app.add_api_route("/contacts/lookups", lookups, methods=["POST"])
        return app


@dataclass
class World:
    """The service, and hands to tell it of orders and to let it send."""

    database: Database
    settings: NotifySettings
    post: Post
    customers: Customers
    mailing: Mailing

    async def hear(self, *events: Any, topic: Topic[Any] | None = None, sequence: int = 1) -> None:
        """One batch of events, recorded as they occurred."""
        await self.take(*(message(topic or _topic(event), event, sequence) for event in events))

    async def take(self, *batch: Message[Any]) -> None:
        consumers = handlers.build(self.settings.rules, self.mailing.calls.wake)
        (handle,) = {
            one.handle for one in consumers.subscriptions for two in batch if two.topic in [t.name for t in one.topics]
        }
        async with self.database.transaction() as tx:
            await handle(tx, batch)

    async def confirmed(self, number: int = 1, *skus: str) -> UUID:
        """An order of Anna's that is confirmed."""
        await self.hear(placed(number, *skus), confirmed(number))
        return order(number)

    async def send(self) -> None:
        """Try every message that is due, and store what comes of it."""
        await settle(self, *await self.mailing._claim(64))

    async def all_due(self) -> None:
        """Time passes: pauses and leases have ended."""
        await self.execute("UPDATE messages SET due_at = now()")

    async def execute(self, sql: str, *arguments: Any) -> None:
        async with self.database.transaction() as tx:
            await tx.db.execute(sql, *arguments)

    async def rows(self, sql: str, *arguments: Any) -> list[Row]:
        async with self.database.reading() as db:
            return await db.fetch(sql, *arguments)

    async def care(self, number: int = 1) -> dict[str, tuple[str, str | None]]:
        """State and failure of an order's care by trigger."""
        found = await self.rows(
            "SELECT trigger, state, failure FROM care WHERE order_id = $1 ORDER BY id", order(number)
        )
        return {row["trigger"]: (row["state"], row["failure"]) for row in found}

    async def said(self, number: int = 1) -> list[tuple[str, str, str | None]]:
        """What was published of an order: event, trigger and reason; its sequences have no gap."""
        found = await self.rows("SELECT * FROM outbox WHERE aggregateid = $1 ORDER BY position", str(order(number)))
        assert [row["sequence"] for row in found] == [*range(1, len(found) + 1)]
        events = [CARE.events[row["type"]].model_validate_json(row["payload"]) for row in found]
        return [(type(event).__name__, event.trigger, getattr(event, "reason", None)) for event in events]

    async def waiting(self) -> int:
        return len(await self.rows("SELECT FROM messages"))


async def until(true: Callable[[], Awaitable[object]], seconds: float = 10) -> None:
    """Wait for workers to bring something about."""
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110 - a database offers nothing to wait for
            await asyncio.sleep(0.05)


async def settle(world: World, *calls: Any) -> None:
    outcomes = [one for one in await asyncio.gather(*calls) if one is not None]
    if outcomes:
        await messages.settle(world.database, outcomes)


def order(number: int) -> UUID:
    return UUID(int=number)


def placed(number: int, *skus: str, **changes: Any) -> OrderPlaced:
    lines = tuple(OrderLine(line=n + 1, sku=sku, quantity=1) for n, sku in enumerate(skus or ("RED-LAMP",)))
    event: dict[str, Any] = {
        "occurred_at": NOW, "order_id": order(number), "channel": "shop", "external_reference": f"100{number}",
        "customer_id": ANNA, "currency": "EUR", "lines": lines, "destination": Destination(country="DE"),
    }  # fmt: skip
    return OrderPlaced(**(event | changes))


def confirmed(number: int) -> OrderConfirmed:
    return OrderConfirmed(
        occurred_at=NOW, order_id=order(number), customer_id=ANNA, recipient_id=UUID(int=3), total=Decimal("20.00"),
        currency="EUR",
    )  # fmt: skip


def cancelled(number: int) -> OrderCancelled:
    return OrderCancelled(occurred_at=NOW, order_id=order(number))


def settled(number: int) -> OrderSettled:
    return OrderSettled(
        occurred_at=NOW, order_id=order(number), customer_id=ANNA, amount=Decimal(20), currency="EUR"
    )  # fmt: skip


def message(topic: Topic[Any], event: Any, sequence: int = 1, recorded_at: datetime | None = None) -> Message[Any]:
    return Message(
        id=uuid4(), correlation_id="test", event=event, topic=topic.name, key=topic.key_of(event), sequence=sequence,
        recorded_at=recorded_at or event.occurred_at,
    )  # fmt: skip


def _topic(event: Any) -> Topic[Any]:
    return next(topic for topic in (ORDERS, IDENTIFICATIONS) if type(event) in topic.events.values())


@pytest.fixture
async def world(database: Database) -> AsyncGenerator[World]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        post = Post(free.getsockname()[1])
    customers = Customers()
    async with listening(customers.app()) as url:
        settings = NotifySettings.model_validate({
            "database_url": "x", "kafka_bootstrap_servers": "x", "auth_issuer": "x", "auth_jwks_url": "x",
            "auth_token_url": f"{url}/token", "client_id": "notify", "client_secret": "x", "customer_url": url,
            "smtp_url": f"smtp://127.0.0.1:{post.port}", "mail_from": "Customer care <care@shop.example>",
            "mail_timeout": 2,
        })  # fmt: skip
        mailing = Mailing(database, settings)
        await asyncio.to_thread(post.open)
        yield World(database, settings, post, customers, mailing)
        await mailing.close()
        await asyncio.to_thread(post.close)
