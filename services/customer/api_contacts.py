"""HTTP: whether and where a customer may be written to, and when they were. Every read leaves a row in ``accesses``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from services.customer import api_parts, contacts, profiles
from services.customer.api_parts import Body, Reader
from services.customer.contacts import Question
from services.customer.keyring import Keyring
from shared import paging
from shared.auth import Principal, requires
from shared.paging import Cursor, Limit, Page
from shared.postgres import Database
from shared.problems import Problem

PURPOSE, ABOUT = "as in order_updates, marketing_email", "the order that one writes about: to whom it named"
PURPOSES = r"^[a-z][a-z0-9_]{0,63}$"
AT_ONCE = 200

ContactReader = Annotated[Principal, requires("contacts:read")]
Purpose = Annotated[str, Query(pattern=PURPOSES, description=PURPOSE)]
About = Annotated[UUID | None, Query(description=ABOUT)]


class Lookup(Body):
    customer_id: UUID
    purpose: Annotated[str, Field(pattern=PURPOSES, description=PURPOSE)]
    order_id: Annotated[UUID | None, Field(description=ABOUT)] = None


Lookups = Annotated[list[Lookup], Field(min_length=1, max_length=AT_ONCE)]


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
        customer_id: UUID, purpose: Purpose, principal: ContactReader, order_id: About = None
    ) -> Contact:  # fmt: skip
        (found,) = await look_up(principal, [Question(customer_id, purpose, order_id)])
        if found is None:
            raise Problem(404, "Not found", f"no customer {customer_id}")
        return Contact(**found)

    @router.post("/contacts/lookups", summary="The same of many customers: each answer in its place, null for nobody")
    async def post_lookups(body: Lookups, principal: ContactReader) -> list[Contact | None]:
        found = await look_up(principal, [Question(one.customer_id, one.purpose, one.order_id) for one in body])
        return [Contact(**one) if one else None for one in found]

    async def look_up(principal: Principal, questions: Sequence[Question]) -> list[dict[str, Any] | None]:
        async with database.transaction() as tx:
            found = await contacts.contacts(tx, keyring, questions)
            noted = [
                (f"contact for {asked.purpose}", one["customer_id"])
                for asked, one in zip(questions, found, strict=True)
                if one
            ]
            if noted:
                await profiles.note_accesses(tx, principal.subject, noted)
        return found

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
