"""What a service holds for orders, asked by the order service's reconciler: one route, the same in each service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from shared import progress
from shared.auth import Principal, requires
from shared.bodies import Body
from shared.events.order import HeldUnits
from shared.postgres import Connection, Database
from shared.topics import ORDERS

AT_ONCE = 500


class OrdersAsked(Body):
    order_ids: Annotated[list[UUID], Field(min_length=1, max_length=AT_ONCE)]


class Holding(BaseModel):
    """Held for one order: units by warehouse, points, the use of a coupon, a quote. A service fills what is its own."""

    order_id: UUID
    goods: list[HeldUnits] = Field(default_factory=list[HeldUnits])
    points: int = 0
    coupon: str | None = None
    quote_id: UUID | None = None


class Holdings(BaseModel):
    """Orders for which nothing is held are absent.

    ``read``: the next offset of each partition of orders; at least what lies before it is contained in ``holdings``.
    """

    read: dict[int, int]
    holdings: list[Holding]


Load = Callable[[Connection, Sequence[UUID]], Awaitable[list[Holding]]]


def route(database: Database, consumer: str, load: Load) -> APIRouter:
    """``POST /holdings`` of the service whose ``consumer`` hears of orders."""
    router = APIRouter(tags=["holdings"])

    @router.post("/holdings", summary="What is held for these orders, and how far orders have been read")
    async def holdings(body: OrdersAsked, _: Annotated[Principal, requires("holdings:read")]) -> Holdings:
        async with database.reading() as db:
            offsets = await progress.load(db, consumer)  # first: what is read afterwards contains at least this
            held = await load(db, body.order_ids)
        read = {partition: offset for (topic, partition), offset in offsets.items() if topic == ORDERS.name}
        return Holdings(read=read, holdings=held)

    return router
