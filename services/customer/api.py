"""HTTP: customers and recipients for those who may read them, and what is commanded about them.

Whatever is read here is personal, so every read leaves a row in ``accesses``. Nothing is stored in clear: a search
finds whole e-mail addresses, whole phone numbers and whole words of names, never parts of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Response
from pydantic import AwareDatetime, BaseModel, Field, field_validator

from services.customer import api_contacts, api_parts, api_points, commands, people, profiles
from services.customer.api_parts import NOBODY, Body, Code, Points, Reader, Text, Writer
from services.customer.handlers import USUAL
from services.customer.keyring import Keyring
from services.customer.people import Masks
from services.customer.registry import Programme
from shared import paging
from shared.auth import Principal, requires
from shared.paging import Cursor, Limit, Page
from shared.postgres import Database
from shared.problems import Problem
from shared.sealing import Buyer

RecipientReader = Annotated[Principal, requires("recipients:read")]
Purpose = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,63}$", description="as in marketing_email")]
Source = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.:/-]{0,99}$", description="where it was said, as in checkout")]


class NewCustomer(Body):
    email: Text
    name: Text | None = None
    phone: Text | None = None
    channel: Code = "store"
    occurred_at: AwareDatetime | None = None

    @field_validator("email")
    @classmethod
    def _is_email(cls, value: str) -> str:
        if not people.is_email(people.normal_email(value)):
            raise ValueError("no e-mail address")
        return value


class Registered(BaseModel):
    customer_id: UUID
    new_customer: bool


class Consent(Body):
    granted: bool
    source: Source
    occurred_at: AwareDatetime | None = None


class Profile(BaseModel):
    customer_id: UUID
    channel: str
    names: list[str]
    emails: list[str]
    phones: list[str]
    tier: str
    guest: bool
    points: Points
    consents: dict[str, bool]
    aliases: list[UUID]
    registered_at: datetime


class Order(BaseModel):
    order_id: UUID
    channel: str | None
    state: Annotated[str, Field(description="identified, refused, ended or settled")]
    points_held: Annotated[int, Field(description="what the order has taken and, while it is under way, still has")]
    occurred_at: datetime
    recorded_at: datetime


class Recipient(BaseModel):
    recipient_id: UUID
    order_id: UUID
    customer_id: UUID
    name: str
    street: str
    city: str
    postal_code: str | None
    region: str | None
    country: str
    phone: str | None
    note: str | None


def routes(database: Database, keyring: Keyring, masks: Masks, programme: Programme = USUAL) -> Sequence[APIRouter]:
    return (
        _reads(database, keyring),
        _histories(database),
        _commands(database, keyring, masks),
        api_points.routes(database, keyring, programme),
        api_contacts.routes(database, keyring),
    )


def _reads(database: Database, keyring: Keyring) -> APIRouter:
    router = APIRouter(tags=["customers"])

    @router.get("/customers", summary="Who was seen under an e-mail address, a phone number, or words of a name")
    async def search(
        principal: Reader, email: Text | None = None, phone: Text | None = None, name: Text | None = None,
        cursor: Cursor = None, limit: Limit = 100,
    ) -> Page[Profile]:  # fmt: skip
        wanted = people.contacts(name, email, phone)
        if len(wanted) != 1:
            message = "give one of email, phone and name, with something to search for"
            raise api_parts.invalid(dict.fromkeys(("email", "phone", "name"), message))
        (after,) = paging.decode(cursor, 1) or (str(NOBODY),)
        async with database.transaction() as tx:
            ids = await profiles.search(tx, keyring, wanted[0], api_parts.uuid(after), limit)
            found = [one for one in await profiles.read(tx, keyring, ids) if profiles.shows(one, wanted[0])]
            seen = [one["customer_id"] for one in found] or [None]
            await profiles.note_access(tx, principal.subject, f"search by {wanted[0].kind}", seen)
        items = [Profile(**one) for one in found]
        return Page(items=items, next=paging.encode(ids[-1]) if len(ids) == limit else None)

    @router.get("/customers/{customer_id}", summary="One customer, by id or alias")
    async def get_customer(customer_id: UUID, principal: Reader) -> Profile:
        async with database.transaction() as tx:
            id_ = await api_parts.reading(tx, principal, customer_id, "profile")
            (profile,) = await profiles.read(tx, keyring, [id_])
        return Profile(**profile)

    @router.get("/recipients/{recipient_id}", summary="Where an order goes")
    async def get_recipient(recipient_id: UUID, principal: RecipientReader) -> Recipient:
        async with database.transaction() as tx:
            found = await profiles.recipient(tx, keyring, recipient_id)
            if found is None:
                raise Problem(404, "Not found", f"no recipient {recipient_id}")
            await profiles.note_access(tx, principal.subject, "recipient", [found["customer_id"]], recipient_id)
        return Recipient(**found)

    return router


def _histories(database: Database) -> APIRouter:
    router = APIRouter(tags=["histories"])

    @router.get("/customers/{customer_id}/orders", summary="The customer's orders, the oldest first")
    async def get_orders(
        customer_id: UUID, principal: Reader, cursor: Cursor = None, limit: Limit = 100
    ) -> Page[Order]:
        after = api_parts.moment(cursor)
        async with database.transaction() as tx:
            id_ = await api_parts.reading(tx, principal, customer_id, "orders")
            rows = await profiles.orders(tx, id_, after, limit)
        items = [Order(**row) for row in rows]
        last = paging.encode(items[-1].recorded_at.isoformat(), items[-1].order_id) if len(items) == limit else None
        return Page(items=items, next=last)

    @router.get("/customers/{customer_id}/consents", summary="Consents given and withdrawn, the oldest first")
    async def get_consents(
        customer_id: UUID, principal: Reader, cursor: Cursor = None, limit: Limit = 100
    ) -> Page[dict[str, Any]]:
        after = api_parts.number(cursor)
        async with database.transaction() as tx:
            id_ = await api_parts.reading(tx, principal, customer_id, "consents")
            rows = await profiles.consent_history(tx, id_, after, limit)
        items = [dict(row) for row in rows]
        return Page(items=items, next=paging.encode(items[-1]["id"]) if len(items) == limit else None)

    return router


def _commands(database: Database, keyring: Keyring, masks: Masks) -> APIRouter:
    router = APIRouter(tags=["commands"])

    @router.post(
        "/customers", summary="Register a customer; a known e-mail address keeps its customer", status_code=201
    )
    async def post_customer(body: NewCustomer, principal: Writer, response: Response) -> Registered:
        traits = people.traits(Buyer(name=body.name, email=body.email, phone=body.phone), body.channel, masks)
        contacts = people.contacts(body.name, body.email, body.phone)
        async with database.transaction() as tx:
            command = api_parts.command(principal, body.occurred_at)
            id_, new = await commands.register(tx, keyring, body.channel, traits, contacts, command)
            if not new:  # who an address belongs to was told
                await profiles.note_access(tx, principal.subject, "registration", [id_])
        response.status_code = 201 if new else 200
        return Registered(customer_id=id_, new_customer=new)

    @router.put("/customers/{customer_id}/consents/{purpose}", summary="Give or withdraw consent for a purpose")
    async def put_consent(customer_id: UUID, purpose: Purpose, body: Consent, principal: Writer) -> Consent:
        async with database.transaction() as tx:
            command = api_parts.command(principal, body.occurred_at)
            await commands.change_consent(tx, keyring, customer_id, purpose, body.granted, body.source, command)
        return body

    return router
