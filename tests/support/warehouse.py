"""An inventory service in its own database: goods are received, orders hold them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from services.inventory import commands, master
from services.inventory.api import routes
from services.inventory.commands import Movement
from services.inventory.handlers import consumers
from shared.app import build_app
from shared.commands import command_cause
from shared.events.inventory import ItemRegistered
from shared.events.order import OrderEvent
from shared.health import Health
from shared.postgres import Database
from shared.topics import ORDERS
from tests.support.http import Issuer, client_of
from tests.support.kernel import deliver, message, rows
from tests.support.orders import NOW

SCOPES = "items:read items:write stock:read stock:write"


async def stocked(database: Database, stock: dict[str, int], *, warehouse: str = "BER") -> None:
    """These SKUs exist, with so many units on hand."""
    async with database.transaction() as tx:
        await master.save_warehouse(tx, warehouse, warehouse, "DE", 100)
        items = [ItemRegistered(occurred_at=NOW, sku=sku, name=sku) for sku in stock]
        await commands.register_items(tx, items, command_cause())
    await moved(database, *(Movement(sku, warehouse, units) for sku, units in stock.items() if units))


async def moved(database: Database, *movements: Movement, kind: str = "receipt") -> None:
    if movements:
        async with database.transaction() as tx:
            await commands.move_stock(tx, kind, movements, actor="anna", at=NOW, cause=command_cause())


async def told(database: Database, *events: OrderEvent) -> None:
    """One batch of the order's events."""
    await deliver(database, consumers, "hold_stock", *(message(ORDERS, event) for event in events))


async def level(database: Database, sku: str = "RED-LAMP", warehouse: str = "BER") -> tuple[int, int]:
    """On hand and reserved."""
    (row,) = await rows(
        database, "SELECT on_hand, reserved FROM stock WHERE (sku, warehouse) = ($1, $2)", sku, warehouse
    )
    return row["on_hand"], row["reserved"]


INVARIANT_I1 = """
SELECT sku, warehouse, on_hand, reserved,
       (SELECT coalesce(sum(quantity), 0) FROM movements m WHERE (m.sku, m.warehouse) = (s.sku, s.warehouse)) AS moved,
       (SELECT coalesce(sum(quantity), 0) FROM hold_lines h WHERE (h.sku, h.warehouse) = (s.sku, s.warehouse)) AS held
FROM stock s
"""


async def assert_stock_adds_up(database: Database) -> None:
    """I1: on hand = sum of movements, reserved = sum of holds, 0 <= reserved <= on hand; and no gap in sequences."""
    for row in await rows(database, INVARIANT_I1):
        assert row["on_hand"] == row["moved"], row
        assert row["reserved"] == row["held"], row
        assert 0 <= row["reserved"] <= row["on_hand"], row
    assert_in_sequence(
        await rows(database, "SELECT aggregatetype, aggregateid, sequence FROM outbox ORDER BY position")
    )


def assert_in_sequence(outbox: Sequence[Any]) -> None:
    last: dict[tuple[str, str], int] = {}
    for row in outbox:
        key = (row["aggregatetype"], row["aggregateid"])
        assert row["sequence"] == last.get(key, 0) + 1, row
        last[key] = row["sequence"]


@asynccontextmanager
async def counter(database: Database, scope: str = SCOPES) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of the inventory service's HTTP API."""
    issuer = Issuer()
    app = build_app("inventory", routes(database), Health())
    app.state.authenticator = issuer.authenticator()
    async with client_of(app, issuer.token(scope)) as client:
        yield client
