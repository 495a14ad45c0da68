"""HTTP for operators, the same in every service: dead letters and the outbox. All of it needs the scope ``admin``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from shared import paging
from shared.auth import Principal, requires
from shared.bodies import Body
from shared.consume import Consumers
from shared.operations import outbox
from shared.operations.letters import DeadLetter, Letters
from shared.operations.outbox import OutboxView
from shared.operations.redrive import NoConsumerError, Outcome, Redriver, RefusedError, redrives
from shared.operations.views import LetterView, WholeLetter, entry, mark, whole
from shared.paging import Cursor, Limit, Page
from shared.postgres import Database
from shared.problems import Problem
from shared.relay import Relay

SHOWN = 100  # failures that a report names
LARGEST = 2**62

Admin = Annotated[Principal, requires("admin")]
Offset = Annotated[int, Path(ge=0, le=LARGEST, description="in the dead-letter topic")]
Text = Annotated[str, Field(min_length=1, max_length=500)]


class RedriveDone(BaseModel):
    outcome: Outcome


class RedriveAsked(Body):
    """Dead letters that wait: of a consumer, of a type of event (``OrderPlaced``, or in full), of a reason."""

    consumer: Text | None = None
    type: Text | None = None
    reason: Text | None = Field(default=None, description="is contained in the reason")
    limit: Annotated[int, Field(ge=1, le=10_000, description="so many are applied at most")] = 1000


class RedriveFailure(BaseModel):
    offset: int
    consumer: str
    key: str
    reason: str


class RedriveReport(BaseModel):
    """How many were applied and so on; the first hundred failures; ``more`` where ``limit`` left some."""

    applied: int
    already_applied: int
    failed: int
    held_back: int
    failures: list[RedriveFailure]
    more: bool


def routes(
    service: str, replica: str, consumers: Consumers, database: Database, bootstrap_servers: str, relay: Relay
) -> APIRouter:
    """The operators' routes of ``service``."""
    router = APIRouter(prefix="/admin", tags=["admin"])
    letters, redriver = Letters(bootstrap_servers, service), Redriver(consumers, database)

    async def marked(found: Sequence[LetterView]) -> None:
        async with database.reading() as db:
            mark(found, await redrives(db, [one.event_id for one in found if one.event_id is not None]))

    @router.get("/dlq", summary="Dead letters, newest first")
    async def list_letters(_: Admin, cursor: Cursor = None, limit: Limit = 50) -> Page[LetterView]:
        position = paging.decode(cursor, 1)
        before = position[0] if position else None
        if before is not None and not (isinstance(before, int) and 0 <= before <= LARGEST):
            raise paging.not_a_cursor()
        async with aclosing(letters.read(end=before, last=limit)) as found:
            items = [entry(one) async for one in found]
        await marked(items)
        items.reverse()
        return Page(items=items, next=paging.encode(items[-1].offset) if len(items) == limit else None)

    @router.get("/dlq/{offset}", summary="A dead letter with headers and payload")
    async def show_letter(offset: Offset, _: Admin) -> WholeLetter:
        found = whole(await letters.at(offset))
        await marked([found])
        return found

    @router.post("/dlq/{offset}/redrive", summary="Apply a dead letter now; again it is already applied")
    async def redrive(offset: Offset, principal: Admin) -> RedriveDone:
        try:
            return RedriveDone(outcome=await redriver.redrive(await letters.at(offset), principal.subject))
        except NoConsumerError as error:
            raise Problem(404, "Not found", f"{service}: {error}") from error
        except RefusedError as error:
            raise Problem(409, "Cannot be redriven", str(error), code="not_redrivable") from error

    @router.post("/dlq/redrive", summary="Apply all dead letters that wait, oldest first")
    async def redrive_all(body: RedriveAsked, principal: Admin) -> RedriveReport:
        async with database.reading() as db:
            known = await redrives(db)
        counts: Counter[str] = Counter()
        failures: list[RedriveFailure] = []
        stopped: set[tuple[str, str, bytes]] = set()  # keys of which one could not be applied: later ones wait for it
        more = False
        async with aclosing(letters.read()) as waiting:
            async for one in waiting:
                if not _meant(one, body) or (one.event_id is not None and (one.consumer, one.event_id) in known):
                    continue
                key = (one.consumer, one.original.topic, one.original.key)
                if key in stopped:
                    counts["held_back"] += 1
                    continue
                if counts["applied"] == body.limit:
                    more = True
                    break
                try:
                    counts[await redriver.redrive(one, principal.subject)] += 1
                except (NoConsumerError, RefusedError) as error:
                    counts["failed"] += 1
                    if one.original.key:
                        stopped.add(key)
                    failures.append(_failure(one, error))
        return RedriveReport(
            applied=counts["applied"], already_applied=counts["already_applied"], failed=counts["failed"],
            held_back=counts["held_back"], failures=failures[:SHOWN], more=more,
        )  # fmt: skip

    @router.get("/outbox/status", summary="What waits for the relay, and whether there is one")
    async def outbox_status(_: Admin) -> OutboxView:
        return await outbox.status(database, relay, replica)

    return router


def _failure(letter: DeadLetter, error: Exception) -> RedriveFailure:
    key = letter.original.key.decode(errors="replace")
    return RedriveFailure(offset=letter.offset, consumer=letter.consumer, key=key, reason=str(error))


def _meant(letter: DeadLetter, which: RedriveAsked) -> bool:
    type_ = letter.original.header("ce_type") or ""
    return (
        which.consumer in (None, letter.consumer)
        and (which.type is None or which.type in (type_, *type_.split(".")[-2:-1]))
        and (which.reason is None or which.reason in letter.reason)
    )
