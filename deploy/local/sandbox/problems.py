"""Refusals and mistakes, answered as application/problem+json (RFC 9457)."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException


class ProblemError(Exception):
    """A refusal."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail


def answer_problems(app: FastAPI) -> None:
    """Have every error of the app answered as a problem."""
    for kind in (Exception, ProblemError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _problem)


async def _problem(_: Request, error: Exception) -> JSONResponse:
    match error:
        case ProblemError():
            status, title, detail = error.status, error.title, error.detail
        case RequestValidationError():
            faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
            status, title, detail = 422, "Invalid request", "; ".join(faults)
        case HTTPException():
            status, title, detail = (error.status_code, HTTPStatus(error.status_code).phrase, str(error.detail))
        case _:
            status, title, detail = (500, "Internal Server Error", "see the log of the sandbox")
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSONResponse(body, status, headers, media_type="application/problem+json")
