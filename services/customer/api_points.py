"""HTTP: a customer's points and tier: read, given, pinned."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, Field, field_validator

from services.customer import api_parts, commands, ledger, profiles, tiers
from services.customer.api_parts import Body, Code, Reader, State, Text, Writer, state
from services.customer.keyring import Keyring
from services.customer.registry import Programme, Registry
from shared import idempotency, paging
from shared.commands import IdempotencyKey
from shared.paging import Cursor, Limit, Page
from shared.postgres import Database


class Tier(Body):
    tier: Code
    occurred_at: AwareDatetime | None = None


class TierShown(BaseModel):
    """``points_of_year``: earned in the 365 days before ``business_time``, the latest that settled orders have shown.

    ``next_tier`` needs ``next_threshold`` of them. Unless more is earned the tier falls at ``falls_at``, in business
    time; a pinned one never does.
    """

    customer_id: UUID
    tier: str
    pinned: bool
    points_of_year: int
    next_tier: str | None
    next_threshold: int | None
    falls_at: datetime | None
    business_time: datetime | None


class Goodwill(Body):
    points: Annotated[
        int, Field(ge=-1_000_000_000, le=1_000_000_000, strict=True, description="the difference, as in -300")
    ]
    reason: Text
    occurred_at: AwareDatetime | None = None

    @field_validator("points")
    @classmethod
    def _something(cls, value: int) -> int:
        if value == 0:
            raise ValueError("0 points change nothing")
        return value


class PointsEntry(BaseModel):
    """``kind``: redeemed, released, part_released or earned by ``order_id``; or goodwill, with reason and actor.

    ``balance`` is what the entry left.
    """

    entry_id: UUID
    kind: str
    points: int
    balance: int
    order_id: UUID | None
    reason: str | None
    actor: str | None
    occurred_at: datetime
    recorded_at: datetime


def routes(database: Database, keyring: Keyring, programme: Programme) -> APIRouter:
    router = APIRouter(tags=["points and tiers"])

    @router.get("/customers/{customer_id}/points", summary="What changed the balance of points, the oldest first")
    async def get_points(
        customer_id: UUID, principal: Reader, cursor: Cursor = None, limit: Limit = 100
    ) -> Page[PointsEntry]:
        after = api_parts.number(cursor)
        async with database.transaction() as tx:
            id_ = await api_parts.reading(tx, principal, customer_id, "points")
            rows = await profiles.points_entries(tx, keyring, id_, after, limit)
        last = paging.encode(rows[-1]["number"]) if len(rows) == limit else None
        return Page(items=[PointsEntry(**row) for row in rows], next=last)

    @router.post("/customers/{customer_id}/points", summary="Give points as goodwill, or take them back")
    async def post_points(
        customer_id: UUID, body: Goodwill, principal: Writer, idempotency_key: IdempotencyKey
    ) -> State:
        print_ = keyring.fingerprint(str(customer_id), body.model_dump_json())
        async with database.transaction() as tx:
            known = await idempotency.first_answer(tx, principal.subject, idempotency_key, print_)
            if known is not None:
                return State.model_validate(known)
            command = api_parts.command(principal, body.occurred_at)
            answer = state(await commands.give_points(tx, keyring, customer_id, body.points, body.reason, command))
            await idempotency.remember(tx, principal.subject, idempotency_key, 200, answer.model_dump(mode="json"))
        return answer

    @router.get("/customers/{customer_id}/tier", summary="A customer's tier, what holds it up, and what the next needs")
    async def get_tier(customer_id: UUID, principal: Reader) -> TierShown:
        async with database.transaction() as tx:
            id_ = await api_parts.reading(tx, principal, customer_id, "tier")
            registry = Registry(programme)
            await ledger.load(tx, registry, [id_])
            tier = await profiles.tier(tx, id_)
        at = registry.clock or datetime.now(UTC)
        points = tiers.standing(registry.earned.get(id_, ()), at, programme.thresholds).points
        name, threshold = tiers.next_tier(points, programme.thresholds) or (None, None)
        return TierShown(
            customer_id=id_, **tier, points_of_year=points, next_tier=name, next_threshold=threshold,
            business_time=registry.clock,
        )  # fmt: skip

    @router.put("/customers/{customer_id}/tier", summary="Put a customer into a tier, and keep it there")
    async def put_tier(customer_id: UUID, body: Tier, principal: Writer) -> State:
        async with database.transaction() as tx:
            command = api_parts.command(principal, body.occurred_at)
            return state(await commands.put_tier(tx, keyring, customer_id, body.tier, command))

    @router.delete("/customers/{customer_id}/tier", summary="Let points decide the tier again")
    async def delete_tier(customer_id: UUID, principal: Writer) -> State:
        async with database.transaction() as tx:
            command = api_parts.command(principal, None)
            return state(await commands.free_tier(tx, keyring, programme, customer_id, command))

    return router
