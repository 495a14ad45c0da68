"""HTTP: whether and where a customer may be written to, and when they were. Every read leaves a row in ``accesses``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel

from services.customer import api_parts, contacts, profiles
from services.customer.api_parts import Reader
from services.customer.keyring import Keyring
from shared import paging
from shared.auth import Principal, requires
from shared.paging import Cursor, Limit, Page
from shared.postgres import Database
from shared.problems import Problem

Purpose = Annotated[str, Query(pattern=r"^[a-z][a-z0-9_]{0,63}$", description="as in order_updates, marketing_email")]
About = Annotated[UUID | None, Query(description="the order that one writes about: to whom it named")]


class Contact(BaseModel):
    """Name and e-mail address to write to; without them where writing is not ``allowed``. ``reason`` is opted_out or
    no_consent."""

    customer_id: UUID
    name: str | None
    email: str | None
    allowed: bool
    reason: str | None


class Told(BaseModel):
    """Something that a customer was to be told: ``state`` is triggered, sent (over ``channel``) or failed (``reason``
    says why), since ``occurred_at``."""

    id: int
    order_id: UUID
    trigger: str
    state: str
    reason: str | None
    channel: str | None
    occurred_at: datetime
    recorded_at: datetime


def routes(database: Database, keyring: Keyring) -> APIRouter:
    router = APIRouter(tags=["contacts"])

    @router.get("/customers/{customer_id}/contact", summary="Whether and where a customer may be written to, by mail")
    async def get_contact(
        customer_id: UUID, purpose: Purpose, principal: Annotated[Principal, requires("contacts:read")],
        order_id: About = None,
    ) -> Contact:  # fmt: skip
        async with database.transaction() as tx:
            id_ = await profiles.resolve(tx, customer_id)
            found = await contacts.contact(tx, keyring, id_, purpose, order_id)
            if found is None:
                raise Problem(404, "Not found", f"no customer {customer_id}")
            await profiles.note_access(tx, principal.subject, f"contact for {purpose}", [id_])
        return Contact(**found)

    @router.get("/customers/{customer_id}/contacts", summary="What a customer was told, the oldest first")
    async def get_contacts(
        customer_id: UUID, principal: Reader, cursor: Cursor = None, limit: Limit = 100
    ) -> Page[Told]:  # fmt: skip
        after = api_parts.number(cursor)
        async with database.transaction() as tx:
            id_ = await api_parts.reading(tx, principal, customer_id, "contacts")
            rows = await contacts.history(tx, id_, after, limit)
        items = [Told(**row) for row in rows]
        return Page(items=items, next=paging.encode(items[-1].id) if len(items) == limit else None)

    return router
