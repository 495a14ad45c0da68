"""HTTP: customers and recipients for those who may read them, and what is commanded about them.

Whatever is read here is personal, so every read leaves a row in ``accesses``. Nothing is stored in clear: a search
finds whole e-mail addresses, whole phone numbers and whole words of names, never parts of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Path, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from services.customer import commands, people, profiles
from services.customer.commands import Command
from services.customer.decisions import Customer
from services.customer.keyring import Keyring
from services.customer.people import Masks
from shared import bodies, idempotency, paging
from shared.auth import Principal, requires
from shared.commands import command_cause
from shared.paging import Cursor, Limit, Page
from shared.postgres import Database, Tx
from shared.problems import Problem
from shared.sealing import Buyer

Reader = Annotated[Principal, requires("customers:read")]
Writer = Annotated[Principal, requires("customers:write")]
Text = Annotated[str, Field(min_length=1, max_length=500)]
Code = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\s\x00-\x1f]+$")]
Purpose = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,63}$", description="as in marketing_email")]
Source = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.:/-]{0,99}$", description="where it was said, as in checkout")]
IdempotencyKey = Annotated[str, Header(min_length=1, max_length=200, description="sent again, finds the first answer")]

NOBODY = UUID(int=0)


class Body(bodies.Body):
    model_config = ConfigDict(str_max_length=500)


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


class Tier(Body):
    tier: Code
    occurred_at: AwareDatetime | None = None


class Consent(Body):
    granted: bool
    source: Source
    occurred_at: AwareDatetime | None = None


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


class Points(BaseModel):
    """``held`` are part of ``balance``, promised to orders under way."""

    balance: int
    held: int


class State(BaseModel):
    """A customer without anything personal, after a command."""

    customer_id: UUID
    tier: str
    points: Points


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
    state: str
    points_held: int
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


def routes(database: Database, keyring: Keyring, masks: Masks) -> Sequence[APIRouter]:
    return (_reads(database, keyring), _histories(database, keyring), _commands(database, keyring, masks))


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
            raise _invalid(dict.fromkeys(("email", "phone", "name"), message))
        (after,) = paging.decode(cursor, 1) or (str(NOBODY),)
        async with database.transaction() as tx:
            ids = await profiles.search(tx, keyring, wanted[0], _uuid(after), limit)
            found = [one for one in await profiles.read(tx, keyring, ids) if profiles.shows(one, wanted[0])]
            seen = [one["customer_id"] for one in found] or [None]
            await profiles.note_access(tx, principal.subject, f"search by {wanted[0].kind}", seen)
        items = [Profile(**one) for one in found]
        return Page(items=items, next=paging.encode(ids[-1]) if len(ids) == limit else None)

    @router.get("/customers/{customer_id}", summary="One customer, by id or alias")
    async def get_customer(customer_id: UUID, principal: Reader) -> Profile:
        async with database.transaction() as tx:
            id_ = await _reading(tx, principal, customer_id, "profile")
            (profile,) = await profiles.read(tx, keyring, [id_])
        return Profile(**profile)

    @router.get("/recipients/{recipient_id}", summary="Where an order goes")
    async def get_recipient(recipient_id: UUID, principal: Reader) -> Recipient:
        async with database.transaction() as tx:
            found = await profiles.recipient(tx, keyring, recipient_id)
            if found is None:
                raise Problem(404, "Not found", f"no recipient {recipient_id}")
            await profiles.note_access(tx, principal.subject, "recipient", [found["customer_id"]], recipient_id)
        return Recipient(**found)

    return router


def _histories(database: Database, keyring: Keyring) -> APIRouter:
    router = APIRouter(tags=["histories"])

    @router.get("/customers/{customer_id}/orders", summary="The customer's orders, the oldest first")
    async def get_orders(
        customer_id: UUID, principal: Reader, cursor: Cursor = None, limit: Limit = 100
    ) -> Page[Order]:
        after = _moment(cursor)
        async with database.transaction() as tx:
            id_ = await _reading(tx, principal, customer_id, "orders")
            rows = await profiles.orders(tx, id_, after, limit)
        items = [Order(**row) for row in rows]
        last = paging.encode(items[-1].recorded_at.isoformat(), items[-1].order_id) if len(items) == limit else None
        return Page(items=items, next=last)

    @router.get("/customers/{customer_id}/points", summary="What changed the balance of points, the oldest first")
    async def get_points(
        customer_id: UUID, principal: Reader, cursor: Cursor = None, limit: Limit = 100
    ) -> Page[dict[str, Any]]:
        after = _moment(cursor)
        async with database.transaction() as tx:
            id_ = await _reading(tx, principal, customer_id, "points")
            items = await profiles.points_entries(tx, keyring, id_, after, limit)
        last = (
            paging.encode(items[-1]["recorded_at"].isoformat(), items[-1]["entry_id"]) if len(items) == limit else None
        )
        return Page(items=items, next=last)

    @router.get("/customers/{customer_id}/consents", summary="Consents given and withdrawn, the oldest first")
    async def get_consents(
        customer_id: UUID, principal: Reader, cursor: Cursor = None, limit: Limit = 100
    ) -> Page[dict[str, Any]]:
        (after,) = paging.decode(cursor, 1) or (0,)
        if not isinstance(after, int) or not 0 <= after < 2**63:
            raise _invalid({"cursor": "not a cursor"})
        async with database.transaction() as tx:
            id_ = await _reading(tx, principal, customer_id, "consents")
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
            command = _command(principal, body.occurred_at)
            id_, new = await commands.register(tx, keyring, body.channel, traits, contacts, command)
            if not new:  # who an address belongs to was told
                await profiles.note_access(tx, principal.subject, "registration", [id_])
        response.status_code = 201 if new else 200
        return Registered(customer_id=id_, new_customer=new)

    @router.put("/customers/{customer_id}/tier", summary="Put a customer into a tier")
    async def put_tier(customer_id: UUID, body: Tier, principal: Writer) -> State:
        async with database.transaction() as tx:
            command = _command(principal, body.occurred_at)
            return _state(await commands.change_tier(tx, keyring, customer_id, body.tier, command))

    @router.put("/customers/{customer_id}/consents/{purpose}", summary="Give or withdraw consent for a purpose")
    async def put_consent(customer_id: UUID, purpose: Purpose, body: Consent, principal: Writer) -> Consent:
        async with database.transaction() as tx:
            command = _command(principal, body.occurred_at)
            await commands.change_consent(tx, keyring, customer_id, purpose, body.granted, body.source, command)
        return body

    @router.post("/customers/{customer_id}/points", summary="Give points as goodwill, or take them back")
    async def post_points(
        customer_id: UUID, body: Goodwill, principal: Writer, idempotency_key: IdempotencyKey
    ) -> State:
        print_ = keyring.fingerprint(str(customer_id), body.model_dump_json())
        async with database.transaction() as tx:
            known = await idempotency.first_answer(tx, principal.subject, idempotency_key, print_)
            if known is not None:
                return State.model_validate(known)
            command = _command(principal, body.occurred_at, idempotency_key)
            customer = await commands.give_points(tx, keyring, customer_id, body.points, body.reason, command)
            answer = _state(customer)
            await idempotency.remember(tx, principal.subject, idempotency_key, 200, answer.model_dump(mode="json"))
        return answer

    return router


async def _reading(tx: Tx, principal: Principal, customer_id: UUID, what: str) -> UUID:
    """The id of a customer that exists, with a note that it is read."""
    id_ = await profiles.resolve(tx, customer_id)
    if not await profiles.known(tx.db, id_):
        raise Problem(404, "Not found", f"no customer {customer_id}")
    await profiles.note_access(tx, principal.subject, what, [id_])
    return id_


def _command(principal: Principal, at: datetime | None, key: str | None = None) -> Command:
    cause = command_cause()
    return Command(actor=principal.subject, at=at or datetime.now(UTC), cause=cause)


def _state(customer: Customer) -> State:
    points = Points(balance=customer.balance, held=customer.held)
    return State(customer_id=customer.customer_id, tier=customer.tier, points=points)


def _moment(cursor: str | None) -> tuple[datetime, UUID]:
    at, id_ = paging.decode(cursor, 2) or ("1970-01-01T00:00:00+00:00", str(NOBODY))
    try:
        return datetime.fromisoformat(at).astimezone(UTC), _uuid(id_)
    except (TypeError, ValueError, OverflowError) as error:
        raise _invalid({"cursor": "not a cursor"}) from error


def _uuid(text: object) -> UUID:
    try:
        return UUID(str(text))
    except ValueError as error:
        raise _invalid({"cursor": "not a cursor"}) from error


def _invalid(fields: dict[str, str]) -> Problem:
    errors = [{"field": field, "message": message} for field, message in fields.items()]
    return Problem(422, "Invalid input", f"{len(errors)} field(s) are not acceptable", code="invalid", errors=errors)
