"""Bulk intake: NDJSON in, an order a line; NDJSON out, a report a line, as the rows are taken in.

Rows are recorded a hundred at a time, each hundred in one transaction. A connection that breaks leaves whole hundreds;
the same rows sent again find their orders.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from services.order import intake
from services.order.intake import OrderBody, Placed
from services.order.settings import OrderSettings
from shared.auth import Principal, requires
from shared.middleware import MAX_BODY
from shared.postgres import Database, is_infrastructure
from shared.problems import Problem, invalid
from shared.telemetry import log

CHUNK = 100

OnError = Annotated[
    Literal["skip", "stop"], Query(description="what a row that is not accepted does to the rows after it")
]


@dataclass(frozen=True)
class Row:
    number: int
    body: OrderBody | Problem


def routes(database: Database, settings: OrderSettings) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/orders/bulk", summary="Place many orders: NDJSON, one order a line; a report a line", status_code=200,
        response_class=StreamingResponse, openapi_extra={"x-streamed": True},
    )  # fmt: skip
    async def place_many(
        request: Request, principal: Annotated[Principal, requires("orders:write")], on_error: OnError = "skip"
    ) -> StreamingResponse:
        reports = _reports(request, principal, database, settings, stop=on_error == "stop")
        return StreamingResponse(reports, media_type="application/x-ndjson")

    return router


async def _reports(
    request: Request, principal: Principal, database: Database, settings: OrderSettings, *, stop: bool
) -> AsyncGenerator[bytes, None]:
    chunk: list[Row] = []
    stopped = False
    async for number, line in _lines(request):
        if stopped:
            yield _report(
                number, Problem(424, "Not processed", "an earlier row was not accepted", code="not_processed")
            )
            continue
        chunk.append(Row(number, _read(line, principal)))
        if len(chunk) == CHUNK:
            async for report, accepted in _take(chunk, database, settings, stop=stop):
                stopped = stopped or not accepted
                yield report
            chunk = []
    async for report, _ in _take(chunk, database, settings, stop=stop):
        yield report


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


async def _take(
    rows: Sequence[Row], database: Database, settings: OrderSettings, *, stop: bool
) -> AsyncGenerator[tuple[bytes, bool], None]:
    """Record what is acceptable and report on all rows, in order; with ``stop`` only those before the first bad one."""
    outcomes = await _outcomes(rows, database, settings, stop=stop)
    for row, outcome in zip(rows, outcomes, strict=True):
        yield _report(row.number, outcome), isinstance(outcome, Placed)


async def _outcomes(
    rows: Sequence[Row], database: Database, settings: OrderSettings, *, stop: bool
) -> list[Placed | Problem]:
    outcomes: dict[int, Placed | Problem] = {row.number: row.body for row in rows if isinstance(row.body, Problem)}
    try:
        async with database.transaction() as tx:
            good = [(row.number, row.body) for row in rows if isinstance(row.body, OrderBody)]
            problems = await intake.check_items(tx, [body for _, body in good])
            outcomes |= {n: problem for (n, _), problem in zip(good, problems, strict=True) if problem is not None}
            if stop and outcomes:
                first = min(outcomes)
                skipped = Problem(424, "Not processed", f"row {first} was not accepted", code="not_processed")
                outcomes |= {row.number: skipped for row in rows if row.number > first}
            accepted = [(number, body) for number, body in good if number not in outcomes]
            if accepted:
                placed = await intake.place(tx, [body for _, body in accepted], settings)
                outcomes |= {number: one for (number, _), one in zip(accepted, placed, strict=True)}
    except Problem as problem:
        outcomes = {row.number: problem for row in rows}
    except Exception as error:
        if not is_infrastructure(error):
            raise
        log.warning("rows not taken", reason=f"{type(error).__name__}: {error}", rows=len(rows))
        outcomes = {row.number: Problem(503, "Temporarily unavailable", "send this row again") for row in rows}
    return [outcomes[row.number] for row in rows]


def _report(number: int, outcome: Placed | Problem) -> bytes:
    report: dict[str, Any] = {"row": number}
    if isinstance(outcome, Placed):
        report |= {"status": 201 if outcome.new else 200, "order_id": str(outcome.order_id)}
    else:
        report |= outcome.body()
    return orjson.dumps(report) + b"\n"
