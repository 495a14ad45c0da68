"""HTTP: what the reconciler has found, and how far it is."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel

from services.order.reconciliation import store
from shared.auth import Principal, requires
from shared.postgres import Database


class Walk(BaseModel):
    """``began_at`` is of the pass under way, ``finished_at`` of the last whole one; null where there was none yet."""

    walk: str
    began_at: datetime | None
    finished_at: datetime | None


class Found(BaseModel):
    """``expected`` is what we have, ``found`` what the other has. ``repaired_at`` is when something was last done."""

    kind: str
    subject: str
    order_id: UUID | None
    expected: str
    found: str
    mendable: bool
    first_seen: datetime
    confirmed_at: datetime
    repaired_at: datetime | None
    attempts: int
    closed_at: datetime | None


class Reconciliation(BaseModel):
    walks: list[Walk]
    findings: list[Found]


def routes(database: Database) -> APIRouter:
    router = APIRouter(tags=["admin"])

    @router.get("/admin/reconciliation", summary="Drift that is open, the newest first; with `closed` also what was")
    async def reconciliation(
        _: Annotated[Principal, requires("admin")], closed: bool = False,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Reconciliation:  # fmt: skip
        async with database.reading() as db:
            walks = [Walk(**row) for row in await store.walks(db)]
            found = [Found(**row) for row in await store.findings(db, closed=closed, limit=limit)]
        return Reconciliation(walks=walks, findings=found)

    return router
