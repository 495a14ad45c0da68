"""Bulk intake: NDJSON in, an order a line; NDJSON out, a report a line.

Rows are recorded while they are read, a hundred in one transaction; the reports follow when all is read, since most
clients do not listen while they speak. A connection that breaks leaves whole hundreds; sent again, they are found.
While there is too much to do it goes no further; if that lasts, the rest is reported as not taken.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from services.order import intake
from services.order.intake import OrderBody, Placed
from services.order.settings import OrderSettings
from shared.auth import Principal, requires
from shared.middleware import MAX_BODY
from shared.overload import Gate
from shared.postgres import Database, is_infrastructure
from shared.problems import Problem, invalid
from shared.telemetry import log
from shared.tracing import Trace, current_trace

CHUNK = 100
MAX_ROWS = 50_000
PATIENCE = 30.0  # seconds, for the gate to open and for a turn, before each hundred

OnError = Annotated[
    Literal["skip", "stop"], Query(description="what a row that is not accepted does to the rows after it")
]


_SKIPPED = Problem(424, "Not processed", "an earlier row was not accepted", code="not_processed")


@dataclass(frozen=True)
class Row:
    number: int
    body: OrderBody | Problem


class _NotPlacedError(Exception):
    """With ``stop``, a row whose reference is in use: the rows after it must not be placed."""

    def __init__(self, number: int, problem: Problem):
        self.number, self.problem = number, problem


def routes(database: Database, settings: OrderSettings, gate: Gate) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/orders/bulk", summary="Place many orders: NDJSON, one order a line; a report a line",
        openapi_extra={"x-streamed": True, "x-sheds": True},
    )  # fmt: skip
    async def place_many(
        request: Request, principal: Annotated[Principal, requires("orders:write")], on_error: OnError = "skip"
    ) -> Response:
        try:
            reports, headers = await _place(request, principal, database, settings, gate, stop=on_error == "stop")
        except ClientDisconnect:
            log.info("the sender of bulk orders went away")
            reports, headers = [], None
        return Response(b"".join(reports), media_type="application/x-ndjson", headers=headers)

    return router


async def _place(
    request: Request, principal: Principal, database: Database, settings: OrderSettings, gate: Gate, *, stop: bool
) -> tuple[list[bytes], dict[str, str] | None]:
    """The reports, and headers for the answer: Retry-After, where rows were not taken for want of room."""
    chunk: list[Row] = []
    reports: list[bytes] = []
    rest: Problem | None = None  # what rows that are not even looked at are told

    async def take() -> None:
        nonlocal rest
        try:
            await gate.opened(PATIENCE)
            async with gate.turn(PATIENCE):
                outcomes = await _outcomes(chunk, database, settings, stop=stop)
        except Problem as full:
            rest, outcomes = full, [full] * len(chunk)
        else:
            gate.added(sum(isinstance(outcome, Placed) and outcome.new for outcome in outcomes))
            if stop and not all(isinstance(outcome, Placed) for outcome in outcomes):
                rest = _SKIPPED
        reports.extend(_report(row.number, outcome) for row, outcome in zip(chunk, outcomes, strict=True))
        chunk.clear()

    async for number, line in _lines(request):
        if number > MAX_ROWS:
            chunk.append(Row(number, Problem(413, "Too many rows", f"rows from here on are not read: send {MAX_ROWS}")))
            break
        if rest is not None:
            reports.append(_report(number, rest))
            continue
        chunk.append(Row(number, _read(line, principal)))
        if len(chunk) == CHUNK:
            await take()
    if chunk:
        await take()
    return reports, rest.headers if rest is not None else None


async def _lines(request: Request) -> AsyncGenerator[tuple[int, bytes], None]:
    """Lines with their numbers, 1..n; empty ones are passed over, one too long is cut, which makes it malformed."""
    rest, number = b"", 0
    async for piece in request.stream():
        *lines, rest = (rest + piece).split(b"\n")
        rest = rest[: MAX_BODY + 1]
        for line in lines:
            number += 1
            if line.strip():
                yield number, line
    if rest.strip():
        yield number + 1, rest


def _read(line: bytes, principal: Principal) -> OrderBody | Problem:
    if len(line) > MAX_BODY:
        return Problem(413, "Body too large", f"at most {MAX_BODY} bytes a line are read here", code="too_large")
    try:
        body = OrderBody.model_validate_json(line)
        intake.check_scopes(body, principal)
        return body
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            return Problem(400, "Malformed JSON", str(error.errors()[0]["msg"]), code="malformed")
        return invalid(error.errors(include_input=False))
    except Problem as problem:
        return problem


async def _outcomes(
    rows: Sequence[Row], database: Database, settings: OrderSettings, *, stop: bool
) -> list[Placed | Problem]:
    outcomes: dict[int, Placed | Problem] = {row.number: row.body for row in rows if isinstance(row.body, Problem)}
    trace = current_trace.get() or Trace.new()
    try:
        async with database.transaction() as tx:
            good = [(row.number, row.body) for row in rows if isinstance(row.body, OrderBody)]
            problems = await intake.check_items(tx, [body for _, body in good])
            outcomes |= {n: problem for (n, _), problem in zip(good, problems, strict=True) if problem is not None}
            if stop and outcomes:
                first = min(outcomes)
                outcomes |= {row.number: _SKIPPED for row in rows if row.number > first}
            accepted = [(number, body) for number, body in good if number not in outcomes]
            if accepted:
                placed = await intake.place(tx, [body for _, body in accepted], settings, [trace] * len(accepted))
                for (number, _), one in zip(accepted, placed, strict=True):
                    if stop and isinstance(one, Problem):
                        raise _NotPlacedError(number, one)
                    outcomes[number] = one
    except _NotPlacedError as bad:  # what was placed after it is undone; now without it
        rows = [Row(row.number, bad.problem) if row.number == bad.number else row for row in rows]
        return await _outcomes(rows, database, settings, stop=stop)
    except Problem as problem:
        outcomes = {row.number: problem for row in rows}
    except Exception as error:
        if is_infrastructure(error):
            log.warning("rows not taken", reason=f"{type(error).__name__}: {error}", rows=len(rows))
            outcomes = {row.number: Problem(503, "Temporarily unavailable", "send this row again") for row in rows}
        elif len(rows) > 1:  # find the culprit
            return await _one_by_one(rows, database, settings, stop=stop)
        else:
            log.exception("a row could not be taken", row=rows[0].number)
            outcomes = {rows[0].number: Problem(500, "Internal error", "this is our fault; the log has it")}
    return [outcomes[row.number] for row in rows]


async def _one_by_one(
    rows: Sequence[Row], database: Database, settings: OrderSettings, *, stop: bool
) -> list[Placed | Problem]:
    outcomes: list[Placed | Problem] = []
    for row in rows:
        if stop and outcomes and not isinstance(outcomes[-1], Placed):
            outcomes.append(_SKIPPED)
        else:
            outcomes += await _outcomes([row], database, settings, stop=stop)
    return outcomes


def _report(number: int, outcome: Placed | Problem) -> bytes:
    report: dict[str, Any] = {"row": number}
    if isinstance(outcome, Placed):
        report |= {"status": 201 if outcome.new else 200, "order_id": str(outcome.order_id)}
    else:
        report |= outcome.body()
    return orjson.dumps(report) + b"\n"
