"""Around every request: the trace, the time it took, and a limit on what is read."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import problems
from shared.door import Door
from shared.overload import Gate
from shared.problems import Problem
from shared.telemetry import HTTP_SECONDS
from shared.tracing import Trace, current_trace

MAX_BODY = 2 * 1_048_576  # bytes; the largest order allowed, 2,000 lines, stays well below
DRAINED = 64 * 1_048_576  # bytes of a body too large that are read and thrown away

NUL = Problem(422, "Invalid input", "no name contains a NUL character", code="invalid")


class TooLargeError(HTTPException):
    """More was sent than is read. An HTTPException, because FastAPI hides any other raised while it reads a body."""

    def __init__(self) -> None:
        super().__init__(413, f"at most {MAX_BODY} bytes are read here", headers={"Connection": "close"})


class Around:
    """Pure ASGI, so that streaming stays streaming."""

    def __init__(self, app: ASGIApp, streamed: frozenset[str]):
        self._app = app
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers: dict[bytes, bytes] = dict(cast("list[tuple[bytes, bytes]]", scope["headers"]))
        trace = Trace.parse(headers.get(b"traceparent", b"").decode("latin-1")).child()
        current_trace.set(trace)
        limit = None if scope["path"] in self._streamed else MAX_BODY
        started, status, read = time.perf_counter(), 500, 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if limit is not None and read > limit:
                await _drain(receive, message)
                raise TooLargeError
            return message

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"traceparent", str(trace).encode())]
            await send(message)

        try:
            announced = headers.get(b"content-length", b"0")
            if limit is not None and announced.isdigit() and int(announced) > limit:
                if b"expect" not in headers:
                    await _drain(receive, None)
                raise TooLargeError
            if "\0" in scope["path"] or b"%00" in scope["query_string"]:
                return await NUL.response()(scope, receive, observed)
            await self._app(scope, limited, observed)
        except TooLargeError as error:
            await problems.from_http(error).response()(scope, receive, observed)
        finally:
            route = cast("dict[str, Any]", scope).get("route")
            template: str = getattr(route, "path", "unmatched")
            HTTP_SECONDS.labels(scope["method"], template, str(status)).observe(time.perf_counter() - started)


async def _drain(receive: Receive, message: Message | None) -> None:
    """Let a sender finish, within reason: most do not look for an answer before, and would see a reset instead."""
    left = DRAINED
    try:
        while left > 0 and (message is None or message.get("more_body", False)):
            message = await asyncio.wait_for(receive(), 10)
            left -= len(message.get("body", b""))
    except TimeoutError:
        return


def install(app: FastAPI, gate: Gate | None = None) -> None:
    """Wrap ``app``. A route with ``openapi_extra={"x-streamed": True}`` may read a body of any size; one with
    ``{"x-sheds": True}`` brings new work, and is refused while ``gate`` says so. Neither has parameters in its path.
    """
    # Asked of the description: the routes of routers within routers are not among app.routes.
    paths = cast("dict[str, dict[str, dict[str, Any]]]", app.openapi()["paths"])
    operations = [(method.upper(), path, one) for path, methods in paths.items() for method, one in methods.items()]
    streamed = frozenset(path for _, path, operation in operations if operation.get("x-streamed"))
    sheds = frozenset((method, path) for method, path, operation in operations if operation.get("x-sheds"))
    if gate is not None:
        app.add_middleware(Door, gate=gate, sheds=sheds, streamed=streamed)
    app.add_middleware(Around, streamed=streamed)
