"""What the tests of pricing are made of: messages as they arrive, and a world of prices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4, uuid5

import orjson

from services.pricing import commands
from services.pricing.discounts import Coupon
from shared.commands import command_cause
from shared.events.order import Destination, OrderLine, OrderPlaced
from shared.messages import Batch, Event, Message
from shared.postgres import Database, Tx

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
ANNA, BERT = UUID(int=1), UUID(int=2)
LAMP = OrderLine(line=1, sku="RED-LAMP", quantity=1)


def order_id(number: int) -> UUID:
    return uuid5(ANNA, str(number))


def placed(
    number: int, *lines: OrderLine, coupon: str | None = None, buyer: UUID | None = ANNA, at: datetime = NOW,
    quote: UUID | None = None,
) -> OrderPlaced:  # fmt: skip
    return OrderPlaced(
        occurred_at=at, order_id=order_id(number), channel="shop", external_reference=str(number), customer_id=buyer,
        currency="EUR", lines=lines or (LAMP,), coupon=coupon, destination=Destination(country="DE"), quote_id=quote,
    )  # fmt: skip


def messages(*events: Event, first_sequence: int = 1, recorded_at: datetime = NOW) -> list[Message[Any]]:
    return [
        Message(
            id=uuid4(), correlation_id="test", event=event, topic="test", key="", sequence=first_sequence + number,
            recorded_at=recorded_at,
        )
        for number, event in enumerate(events)
    ]  # fmt: skip


Handler = Callable[[Tx, Batch[Any]], Awaitable[None]]


async def handle(
    database: Database, handler: Handler, *events: Event, first_sequence: int = 1, recorded_at: datetime = NOW
) -> None:
    async with database.transaction() as tx:
        await handler(tx, messages(*events, first_sequence=first_sequence, recorded_at=recorded_at))


async def a_world(database: Database, *coupons: Coupon, since: datetime = LONG_AGO) -> None:
    """A retail list in which a RED-LAMP costs 20.00 and a BLUE-CUP 4.50."""
    async with database.transaction() as tx:
        await commands.put_list(tx, "retail", "Retail", "EUR", 100)
        prices = {"RED-LAMP": Decimal("20.00"), "BLUE-CUP": Decimal("4.50")}
        await commands.change_prices(tx, "retail", prices, since, command_cause())
        for coupon in coupons:
            await commands.put_coupon(tx, coupon)


async def outbox(database: Database, topic: str = "quote") -> list[tuple[str, str, int, dict[str, Any]]]:
    """What was published on a topic: type, key, sequence and body."""
    async with database.reading() as db:
        rows = await db.fetch(
            "SELECT type, aggregateid, sequence, payload FROM outbox WHERE aggregatetype = $1 ORDER BY position",
            f"isthmus.pricing.{topic}.v1",
        )
    return [
        (row["type"].split(".")[2], row["aggregateid"], row["sequence"], orjson.loads(row["payload"])) for row in rows
    ]


async def kinds(database: Database) -> Sequence[str]:
    return [kind for kind, _, _, _ in await outbox(database)]
