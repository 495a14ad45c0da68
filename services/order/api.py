"""HTTP: orders are placed, looked at, listed and cancelled."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from pydantic import AwareDatetime, Field

from services.order import bulk, intake, store, views
from services.order.cancellations import Refusal, cancel, cancel_lines
from services.order.intake import MAX_LINES, MAX_UNITS, Body, OrderBody, Placed
from services.order.settings import OrderSettings
from services.order.shipping.decisions import handed_over
from services.order.signals import signals
from services.order.views import OrderView, Summary
from shared import idempotency, paging
from shared.auth import Principal, requires
from shared.commands import IdempotencyKey, OptionalKey, command_cause
from shared.grouped import Grouped
from shared.overload import Gate, leave
from shared.paging import Cursor, Limit, Page
from shared.postgres import Database, Tx
from shared.problems import Problem
from shared.tracing import Trace, current_trace

State = Literal["placed", "paying", "confirmed", "rejected", "cancelled", "expired", "closed"]
OPEN = frozenset({"placed", "paying"})
LONGEST_WAIT = 30.0

Prefer = Annotated[str | None, Header(description="`wait=2`: answer with the outcome, if there is one within 2 s")]


class CancelledUnits(Body):
    line: Annotated[int, Field(ge=1, le=MAX_LINES, strict=True)]
    quantity: Annotated[int, Field(ge=1, le=MAX_UNITS, strict=True)]


Reason = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[a-z0-9_]+$")]


class Cancellation(Body):
    """Without ``lines`` the whole order is cancelled; with them, that many units of a confirmed order."""

    reason: Reason = "requested"
    lines: Annotated[list[CancelledUnits], Field(min_length=1, max_length=MAX_LINES)] | None = None
    occurred_at: AwareDatetime | None = Field(default=None, description="only with the scope orders:import")


class Fulfilment(Body):
    """Without ``parcel`` all that the order has left is meant. Told twice, it is one."""

    parcel: Annotated[int, Field(ge=1, strict=True)] | None = None
    tracking: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{3,39}$")] | None = None
    occurred_at: AwareDatetime | None = None


def routes(database: Database, settings: OrderSettings, gate: Gate) -> Sequence[APIRouter]:
    router = APIRouter(tags=["orders"])

    async def look_up(order_ids: list[UUID]) -> Sequence[OrderView | None]:
        async with database.reading() as db:
            return await views.found(db, order_ids)

    looked_up = Grouped(look_up)

    async def seen(order_id: UUID) -> OrderView:
        if (found := await looked_up(order_id)) is None:
            raise not_found(order_id)
        return found

    async def place_all(asked: list[tuple[OrderBody, Trace]]) -> Sequence[Placed | Problem]:
        async with gate.turn(), database.transaction() as tx:
            return await _place(tx, [body for body, _ in asked], settings, [trace for _, trace in asked])

    placed_with_others = Grouped(place_all)

    async def place_keyed(body: OrderBody, subject: str, key: str, trace: Trace) -> Placed:
        print_ = intake.fingerprint(body, settings.fingerprint_key)
        async with gate.turn(), database.transaction() as tx:
            known = await idempotency.first_answer(tx, subject, key, print_)
            if known is not None:
                return Placed(UUID(known["order_id"]), new=False)
            (outcome,) = await _place(tx, [body], settings, [trace])
            if isinstance(outcome, Problem):
                raise outcome
            await idempotency.remember(tx, subject, key, 201, {"order_id": str(outcome.order_id)})
            return outcome

    @router.post(
        "/orders", status_code=201, summary="Place an order; 200 when the same one was placed before",
        openapi_extra={"x-sheds": True}, response_model=OrderView,
    )  # fmt: skip
    async def place(
        body: OrderBody, principal: Annotated[Principal, requires("orders:write")],
        idempotency_key: OptionalKey = None, prefer: Prefer = None,
    ) -> Response:  # fmt: skip
        intake.check_scopes(body, principal)
        trace = current_trace.get() or Trace.new()
        if idempotency_key is None:
            placed = await placed_with_others((body, trace))
        else:
            placed = await place_keyed(body, principal.subject, idempotency_key, trace)
        gate.added(placed.new)
        headers = {"Location": f"/orders/{placed.order_id}"}
        if seconds := _wait(prefer):
            leave()
            await _settled(database, placed.order_id, seconds)
            headers["Preference-Applied"] = f"wait={seconds:g}"
        view = placed.view() if placed.view is not None and not seconds else await seen(placed.order_id)
        # The framework would make Python values of it first, and then text of those.
        return Response(view.model_dump_json(), 201 if placed.new else 200, headers, "application/json")

    @router.get("/orders/{order_id}", summary="One order with its timeline")
    async def get(order_id: UUID, _: Annotated[Principal, requires("orders:read")], prefer: Prefer = None) -> OrderView:
        if seconds := _wait(prefer):
            await _settled(database, order_id, seconds)
        return await seen(order_id)

    @router.get("/orders", summary="Orders, newest first")
    async def list_orders(
        _: Annotated[Principal, requires("orders:read")], state: State | None = None,
        channel: Annotated[str | None, Query(max_length=63)] = None, customer_id: UUID | None = None,
        external_reference: Annotated[str | None, Query(max_length=200)] = None, cursor: Cursor = None,
        limit: Limit = 50,
    ) -> Page[Summary]:  # fmt: skip
        after = _uuid(paging.decode(cursor, 1))
        async with database.reading() as db:
            items = await views.orders(
                db, after=after, state=state, channel=channel, customer_id=customer_id, reference=external_reference,
                limit=limit,
            )  # fmt: skip
        return Page(items=items, next=paging.encode(items[-1].order_id) if len(items) == limit else None)

    @router.get("/order-counts", summary="How many orders are in which state")
    async def order_counts(_: Annotated[Principal, requires("orders:read")]) -> dict[str, int]:
        async with database.reading() as db:
            return await views.counts(db)

    @router.post(
        "/orders/{order_id}/cancellations",
        summary="Cancel an order, or units of a confirmed one; 202 while the carrier is asked to give parcels back",
    )
    async def cancel_order(
        order_id: UUID, body: Cancellation, response: Response,
        principal: Annotated[Principal, requires("orders:write")],
        idempotency_key: IdempotencyKey,
    ) -> OrderView:  # fmt: skip
        if body.occurred_at is not None and "orders:import" not in principal.scopes:
            raise Problem(403, "Forbidden", "the token lacks the scope orders:import",
                          errors=[{"field": "occurred_at", "message": "needs the scope orders:import"}])  # fmt: skip
        await cancel_once(database, order_id, body, principal.subject, idempotency_key)
        found = await seen(order_id)
        response.status_code = 202 if found.cancellation_pending else 200
        return found

    @router.post("/orders/{order_id}/fulfilments", summary="A channel that ships its orders itself has delivered one")
    async def fulfil(order_id: UUID, body: Fulfilment, _: Annotated[Principal, requires("orders:import")]) -> OrderView:
        async with database.transaction() as tx:
            orders = await store.load(tx, [order_id])
            if order_id not in orders.by_id:
                raise not_found(order_id)
            order, at = orders.by_id[order_id], body.occurred_at or datetime.now(UTC)
            if order.fulfilment != "channel" or order.state not in ("confirmed", "closed"):
                how = f"ships by {order.fulfilment}" if order.fulfilment != "channel" else f"is {order.state}"
                raise Problem(409, "Not to be fulfilled", f"the order {how}", code="not_fulfillable")
            if body.parcel is not None and order.parcel(body.parcel) is None:
                raise Problem(404, "Not found", f"the order has no parcel {body.parcel}")
            events = handed_over(order, body.parcel, at, body.tracking)
            orders.happen(tx, order, events, command_cause(str(order_id)), at)
            await store.save(tx, orders)
        return await seen(order_id)

    router.include_router(bulk.routes(database, settings, gate))
    return (router,)


async def _place(
    tx: Tx, bodies: Sequence[OrderBody], settings: OrderSettings, traces: Sequence[Trace]
) -> list[Placed | Problem]:
    problems = await intake.check_items(tx, bodies)
    known = [number for number, problem in enumerate(problems) if problem is None]
    outcomes: dict[int, Placed | Problem] = {n: problem for n, problem in enumerate(problems) if problem is not None}
    if known:
        placed = await intake.place(tx, [bodies[n] for n in known], settings, [traces[n] for n in known])
        outcomes |= dict(zip(known, placed, strict=True))
    return [outcomes[number] for number in range(len(bodies))]


async def cancel_once(
    database: Database, order_id: UUID, body: Cancellation, subject: str, idempotency_key: str
) -> UUID | None:
    """Carry out what ``body`` asks for, unless ``subject`` has with this key; the cause of what happened, if it has.

    Raises Problem 404 for an order that is not there, 409 for one that cannot be cancelled so.
    """
    async with database.transaction() as tx:
        key = f"{order_id}/{idempotency_key}"
        if await idempotency.first_answer(tx, subject, key, idempotency.fingerprint(body)) is not None:
            return None
        orders = await store.load(tx, [order_id], with_lines=True)
        if order_id not in orders.by_id:
            raise not_found(order_id)
        order, at = orders.by_id[order_id], body.occurred_at or datetime.now(UTC)
        units = _units(body.lines)
        events = cancel(order, body.reason, at) if units is None else cancel_lines(order, units, body.reason, at)
        if isinstance(events, Refusal):
            errors = [{"field": events.field, "message": events.reason}] if events.field else []
            raise Problem(409, "Cannot be cancelled", events.reason, code="not_cancellable", errors=errors)
        cause = command_cause(str(order_id))
        orders.happen(tx, order, events, cause, at)
        await store.save(tx, orders)
        await idempotency.remember(tx, subject, key, 200, {"order_id": str(order_id)})
        return cause.id if events else None


def not_found(order_id: UUID) -> Problem:
    return Problem(404, "Not found", f"no order {order_id}")


def _units(lines: list[CancelledUnits] | None) -> Mapping[int, int] | None:
    if lines is None:
        return None
    units: dict[int, int] = {}
    for one in lines:
        units[one.line] = units.get(one.line, 0) + one.quantity
    return units


def _wait(prefer: str | None) -> float:
    """The seconds of ``Prefer: wait=N`` (RFC 7240), at most half a minute; 0 without, and while many others wait."""
    match = None if signals.crowded else re.search(r"\bwait=(\d{1,4})\b", prefer or "")
    return min(float(match[1]), LONGEST_WAIT) if match else 0.0


async def _settled(database: Database, order_id: UUID, seconds: float) -> None:
    """Wait until the order is confirmed or ended; told by this process, or seen in the table a little later."""
    until, pause = time.monotonic() + seconds, 0.25
    while (left := until - time.monotonic()) > 0:
        async with database.reading() as db:
            if await views.state_of(db, order_id) not in OPEN:
                return
        await signals.wait(order_id, min(left, pause))
        pause = min(pause * 1.5, 2.0)


def _uuid(position: Sequence[Any] | None) -> UUID | None:
    try:
        return None if position is None else UUID(str(position[0]))
    except ValueError as error:
        raise paging.not_a_cursor() from error
