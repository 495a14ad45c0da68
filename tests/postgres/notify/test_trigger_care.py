"""A batch of order events in; care out, once per order and trigger."""

from datetime import UTC, datetime
from decimal import Decimal
from time import time
from uuid import UUID, uuid4

import httpx2
import orjson

from services.notify.api import routes
from services.notify.handlers import trigger_care
from shared.app import build_app
from shared.auth import Principal
from shared.events.order import Destination, OrderCancelled, OrderConfirmed, OrderEvent, OrderLine, OrderPlaced
from shared.health import Health
from shared.messages import Message
from shared.postgres import Database

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANNA = UUID(int=1)


def life(number: int) -> list[OrderEvent]:
    """An order placed by a guest, confirmed as Anna's, and cancelled."""
    order_id = UUID(int=number)
    return [
        OrderPlaced(
            occurred_at=NOW, order_id=order_id, channel="shop", external_reference=str(number), currency="EUR",
            lines=(OrderLine(line=1, sku="RED-LAMP", quantity=1),), destination=Destination(country="DE"),
        ),
        OrderConfirmed(
            occurred_at=NOW, order_id=order_id, customer_id=ANNA, recipient_id=UUID(int=3), total=Decimal(20),
            currency="EUR",
        ),
        OrderCancelled(occurred_at=NOW, order_id=order_id),
    ]  # fmt: skip


async def handle(database: Database, *events: OrderEvent) -> None:
    batch = [
        Message(id=uuid4(), correlation_id="test", event=e, topic="test", key="", sequence=1, recorded_at=NOW)
        for e in events
    ]
    async with database.transaction() as tx:
        await trigger_care(tx, batch)


async def said(database: Database) -> list[tuple[str, int, str]]:
    async with database.reading() as db:
        rows = await db.fetch("SELECT aggregateid, sequence, payload FROM outbox ORDER BY position")
    return [(row["aggregateid"], row["sequence"], orjson.loads(row["payload"])["trigger"]) for row in rows]


async def test_every_turn_is_triggered_once_in_one_batch_or_in_many(database: Database) -> None:
    await handle(database, *life(1), *life(1))
    for event in [*life(2), *life(2)]:
        await handle(database, event)
    one, two = str(UUID(int=1)), str(UUID(int=2))
    assert await said(database) == [
        (one, 1, "order_confirmed"), (one, 2, "order_cancelled"),
        (two, 1, "order_confirmed"), (two, 2, "order_cancelled"),
    ]  # fmt: skip


async def test_a_confirmation_after_the_end_is_not_told(database: Database) -> None:
    _, confirmed, cancelled = life(1)
    await handle(database, cancelled)
    await handle(database, confirmed)
    assert [trigger for _, _, trigger in await said(database)] == ["order_cancelled"]


class Anyone:
    async def principal(self, _token: str) -> Principal:
        return Principal("tester", frozenset({"care:read"}), time() + 60)


async def test_care_is_listed_of_one_order_and_of_all(database: Database) -> None:
    await handle(database, *life(1), *life(2))
    app = build_app("notify", routes(database), Health())
    app.state.authenticator = Anyone()
    headers = {"Authorization": "Bearer x"}
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://notify", headers=headers) as client:
        one = (await client.get("/care", params={"order_id": str(UUID(int=1))})).json()
        assert [care["trigger"] for care in one["items"]] == ["order_cancelled", "order_confirmed"]
        assert {care["customer_id"] for care in one["items"]} == {str(ANNA)}
        page = (await client.get("/care", params={"limit": 3})).json()
        rest = (await client.get("/care", params={"limit": 3, "cursor": page["next"]})).json()
        assert (len(page["items"]), len(rest["items"]), rest["next"]) == (3, 1, None)
        assert (await client.get("/care", params={"cursor": "x"})).status_code == 422
