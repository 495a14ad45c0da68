"""HTTP: what the routes of customers share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from services.customer import profiles
from services.customer.commands import Command
from services.customer.registry import Customer
from shared import bodies, paging
from shared.auth import Principal, requires
from shared.commands import command_cause
from shared.postgres import Tx
from shared.problems import Problem

Reader = Annotated[Principal, requires("customers:read")]
Writer = Annotated[Principal, requires("customers:write")]
Text = Annotated[str, Field(min_length=1, max_length=500)]
Code = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\s\x00-\x1f]+$")]

NOBODY = UUID(int=0)


class Body(bodies.Body):
    model_config = ConfigDict(str_max_length=500)


class Points(BaseModel):
    """``balance`` can be redeemed; ``held``, no part of it, is what orders under way have taken."""

    balance: int
    held: int


class State(BaseModel):
    """A customer without anything personal, after a command. ``pinned``: the tier stays, whatever is bought."""

    customer_id: UUID
    tier: str
    pinned: bool = False  # answers that were remembered before there was pinning have none
    points: Points


def state(customer: Customer) -> State:
    points = Points(balance=customer.balance, held=customer.held)
    return State(customer_id=customer.customer_id, tier=customer.tier, pinned=customer.pinned, points=points)


async def reading(tx: Tx, principal: Principal, customer_id: UUID, what: str) -> UUID:
    """The id of a customer that exists, with a note that it is read."""
    id_ = await profiles.resolve(tx, customer_id)
    if not await profiles.known(tx.db, id_):
        raise Problem(404, "Not found", f"no customer {customer_id}")
    await profiles.note_access(tx, principal.subject, what, [id_])
    return id_


def command(principal: Principal, at: datetime | None) -> Command:
    return Command(actor=principal.subject, at=at or datetime.now(UTC), cause=command_cause())


def moment(cursor: str | None) -> tuple[datetime, UUID]:
    at, id_ = paging.decode(cursor, 2) or ("1970-01-01T00:00:00+00:00", str(NOBODY))
    try:
        return datetime.fromisoformat(at).astimezone(UTC), uuid(id_)
    except (TypeError, ValueError, OverflowError) as error:
        raise invalid({"cursor": "not a cursor"}) from error


def number(cursor: str | None) -> int:
    (after,) = paging.decode(cursor, 1) or (0,)
    if not isinstance(after, int) or not 0 <= after < 2**63:
        raise invalid({"cursor": "not a cursor"})
    return after


def uuid(text: object) -> UUID:
    try:
        return UUID(str(text))
    except ValueError as error:
        raise invalid({"cursor": "not a cursor"}) from error


def invalid(fields: dict[str, str]) -> Problem:
    errors = [{"field": field, "message": message} for field, message in fields.items()]
    return Problem(422, "Invalid input", f"{len(errors)} field(s) are not acceptable", code="invalid", errors=errors)
