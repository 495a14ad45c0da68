"""Errors over HTTP as problem details (RFC 9457), the offending field named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from shared.postgres import INFRASTRUCTURE_ERRORS, is_infrastructure
from shared.telemetry import log


class Problem(Exception):  # noqa: N818 - the field's own word, RFC 9457
    """An error answer. ``errors`` names fields, as in ``{"field": "lines.0.sku", "message": "unknown SKU"}``."""

    def __init__(
        self, status: int, title: str, detail: str = "", *, code: str = "", errors: Sequence[dict[str, str]] = (),
        headers: dict[str, str] | None = None,
    ):  # fmt: skip
        super().__init__(f"{status} {title}: {detail}")
        self.status, self.title, self.detail = status, title, detail
        self.code = code or title.lower().replace(" ", "_")
        self.errors = list(errors)
        self.headers = headers

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"type": f"urn:isthmus:problem:{self.code}", "title": self.title, "status": self.status}
        if self.detail:
            body["detail"] = self.detail
        if self.errors:
            body["errors"] = self.errors
        return body

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers, media_type="application/problem+json")


def invalid(errors: Sequence[Any]) -> Problem:
    """422 from pydantic's error list; inputs are not echoed, since they may be personal."""
    fields = [{"field": field_name(error["loc"]), "message": _message(error)} for error in errors[:50]]
    return Problem(422, "Invalid input", f"{len(errors)} field(s) are not acceptable", code="invalid", errors=fields)


def _message(error: Any) -> str:
    if error["type"] in ("model_attributes_type", "dict_type") and field_name(error["loc"]) == "body":
        return "a JSON object is expected, with Content-Type: application/json"
    return str(error["msg"]).removeprefix("Value error, ")


def field_name(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location if part not in ("body", "query", "path", "header")) or "body"


def from_http(error: HTTPException) -> Problem:
    """What the framework raises, in our form."""
    title = {400: "Bad request", 404: "Not found", 405: "Method not allowed", 408: "Request timeout",
             413: "Body too large"}.get(error.status_code, "Error")  # fmt: skip
    return Problem(error.status_code, title, str(error.detail), headers=dict(error.headers) if error.headers else None)


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` as problem details."""

    async def on_problem(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return error.response()

    async def on_invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        if any(one["type"] == "json_invalid" for one in error.errors()):
            one = error.errors()[0]
            where = f"{one.get('ctx', {}).get('error', one['msg'])} at byte {one['loc'][-1]}"
            return Problem(400, "Malformed JSON", where, code="malformed").response()
        return invalid(error.errors()).response()

    async def on_http(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return from_http(error).response()

    async def on_other(_request: Request, error: Exception) -> JSONResponse:
        if is_infrastructure(error):
            log.warning("not available", reason=f"{type(error).__name__}: {error}")
            return Problem(503, "Temporarily unavailable", "try again", headers={"Retry-After": "1"}).response()
        log.exception("request failed", exc_info=error)
        return Problem(500, "Internal error", "this is our fault; the log has it under the trace id").response()

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    for infrastructure in INFRASTRUCTURE_ERRORS:  # by name: after a handler of Exception the connection is closed, too
        app.add_exception_handler(infrastructure, on_other)
    app.add_exception_handler(Exception, on_other)
