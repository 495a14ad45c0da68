"""HTTP: the care that was triggered, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel

from services.notify import store
from shared import paging
from shared.auth import Principal, requires
from shared.paging import Cursor, Limit, Page
from shared.postgres import Database

LATEST = 2**63 - 1


class Care(BaseModel):
    """Something that a customer is to be told: ``state`` is triggered, sent (at ``sent_at``) or failed (``failure``
    says why). ``reason`` is the order's, as why it was refused."""

    order_id: UUID
    trigger: str
    customer_id: UUID | None
    reason: str | None
    occurred_at: datetime
    recorded_at: datetime
    state: str
    sent_at: datetime | None
    failure: str | None


def routes(database: Database) -> Sequence[APIRouter]:
    router = APIRouter(tags=["care"])

    @router.get("/care", summary="Care triggered, of one order or of all; the latest first")
    async def get_care(
        _: Annotated[Principal, requires("care:read")], order_id: UUID | None = None, cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Page[Care]:  # fmt: skip
        before = _before(cursor)
        async with database.reading() as db:
            rows = await store.list_care(db, before, order_id, limit)
        next_ = paging.encode(rows[-1]["id"]) if len(rows) == limit else None
        return Page(items=[Care(**row) for row in rows], next=next_)

    return (router,)


def _before(cursor: str | None) -> int:
    (before,) = paging.decode(cursor, 1) or (LATEST,)
    if not isinstance(before, int) or not 0 <= before <= LATEST:
        raise paging.not_a_cursor()
    return before
