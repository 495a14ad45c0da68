"""What comes in: the provider's HTTP API, its redirect page, and the switches of the sandbox."""

import asyncio
import hmac
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from .behaviour import Behaviour
from .database import Database
from .dropping import DroppedConnection
from .ledger import Ledger
from .models import Page, Payment, PaymentRequest, ProblemError, Refund, RefundRequest
from .outbox import Outbox
from .webhooks import Courier


@dataclass(frozen=True)
class Sandbox:
    database: Database
    outbox: Outbox
    ledger: Ledger
    courier: Courier
    initial: Behaviour
    api_key: str


# All dependencies are async: FastAPI would run each plain one in a thread of its own.
async def _sandbox(request: Request) -> Sandbox:
    return request.app.state.sandbox


TheSandbox = Annotated[Sandbox, Depends(_sandbox)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


async def _authorised(sandbox: TheSandbox, bearer: Bearer) -> None:
    if bearer is None or not hmac.compare_digest(bearer.credentials.encode(), sandbox.api_key.encode()):
        raise ProblemError(401, "Unauthorized", "send Authorization: Bearer <api key>")


async def _key(idempotency_key: Annotated[str | None, Header(max_length=255)] = None) -> str:
    if not idempotency_key:
        raise ProblemError(400, "Idempotency-Key required", "send a key of your own, the same with every retry")
    return idempotency_key


Key = Annotated[str, Depends(_key)]
Cursor = Annotated[int, Query(ge=0, lt=2**63, description="next_cursor of the page before")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Outcome = Literal["success", "fail"]

open_to_all = APIRouter()
merchant = APIRouter(dependencies=[Depends(_authorised)])


@merchant.post("/v1/payments", status_code=201, response_model=Payment, summary="Pay, once per Idempotency-Key")
async def pay(order: PaymentRequest, key: Key, sandbox: TheSandbox, request: Request, response: Response):
    plan = sandbox.ledger.behaviour.plan(order.token, order.reference)
    if plan.answer == "lost" and sandbox.ledger.lose(key):
        return DroppedConnection()
    payment, created = sandbox.ledger.pay(key, order, plan)
    if not created:  # a retry is answered at once: the faults are those of the first attempt
        response.status_code = 200
        return _shown(payment, request)
    late = sandbox.ledger.behaviour.timeout_seconds if plan.answer == "late" else 0.0
    try:
        await asyncio.sleep(plan.delay_seconds + late)
    except asyncio.CancelledError:  # the server stops: never answer 500 for what was done
        return DroppedConnection()
    return DroppedConnection() if plan.answer == "dropped" else _shown(payment, request)


@merchant.get("/v1/payments", summary="The whole log, or a look-up by the merchant's reference")
async def payments(
    sandbox: TheSandbox, request: Request, reference: str | None = None, cursor: Cursor = 0, limit: Limit = 100
) -> Page[Payment]:
    page = sandbox.ledger.payments(cursor, limit, reference)
    return Page(data=[_shown(payment, request) for payment in page.data], next_cursor=page.next_cursor)


@merchant.get("/v1/payments/{payment_id}", summary="One payment in its present state")
async def payment(payment_id: str, sandbox: TheSandbox, request: Request) -> Payment:
    return _shown(sandbox.ledger.payment(payment_id), request)


@merchant.post("/v1/payments/{payment_id}/refunds", status_code=201, summary="Refund, never above what was captured")
async def refund(payment_id: str, order: RefundRequest, key: Key, sandbox: TheSandbox, response: Response) -> Refund:
    made, created = sandbox.ledger.refund(key, payment_id, order)
    if not created:
        response.status_code = 200
    return made


@merchant.post("/v1/payments/{payment_id}/void", summary="Cancel a payment that is not final; 409 when it is too late")
async def void(payment_id: str, sandbox: TheSandbox) -> Payment:
    return sandbox.ledger.void(payment_id)


@merchant.get("/v1/refunds", summary="The whole log of refunds")
async def refunds(sandbox: TheSandbox, cursor: Cursor = 0, limit: Limit = 100) -> Page[Refund]:
    return sandbox.ledger.refunds(cursor, limit)


@merchant.get("/sandbox/behaviour", summary="Sandbox: the rates in force")
async def behaviour(sandbox: TheSandbox) -> Behaviour:
    return sandbox.ledger.behaviour


@merchant.put("/sandbox/behaviour", summary="Sandbox: set rates until the restart; one left out is as at the start")
async def behave(wanted: Behaviour, sandbox: TheSandbox) -> Behaviour:
    try:
        sandbox.ledger.behaviour = sandbox.initial.with_changes(wanted)
    except ValidationError as error:
        raise ProblemError(422, "Rates do not fit together", error.errors()[0]["msg"]) from error
    return sandbox.ledger.behaviour


@open_to_all.get(
    "/redirect/{payment_id}", response_model=Payment, summary="Sandbox: the buyer's bank; without an outcome, a page"
)
async def bank_page(payment_id: str, sandbox: TheSandbox, outcome: Outcome | None = None):
    if outcome is None:
        asked = sandbox.ledger.payment(payment_id)
        return HTMLResponse(
            f"<h1>Pay {asked.amount} {asked.currency}?</h1><form method=post>"
            "<button formaction='?outcome=success'>Confirm</button> <button formaction='?outcome=fail'>Refuse</button>"
        )
    return sandbox.ledger.finish_action(payment_id, outcome == "success")


@open_to_all.post("/redirect/{payment_id}", summary="Sandbox: the buyer confirms or refuses (3-D Secure)")
async def bank_answer(payment_id: str, outcome: Outcome, sandbox: TheSandbox) -> Payment:
    return sandbox.ledger.finish_action(payment_id, outcome == "success")


@open_to_all.get("/health", summary="Alive, and how many webhooks wait to be delivered")
async def health(sandbox: TheSandbox) -> dict[str, str | int]:
    return {"status": "ok", "webhooks_waiting": sandbox.outbox.waiting()}


def create_app(sandbox: Sandbox) -> FastAPI:
    """Return the provider; its courier runs for as long as the app does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        courier = asyncio.create_task(sandbox.courier.run())
        yield
        sandbox.courier.stop()
        await courier
        sandbox.database.close()

    app = FastAPI(title="Sandbox payment provider", version="1", lifespan=lifespan)
    app.state.sandbox = sandbox
    app.include_router(merchant)
    app.include_router(open_to_all)
    app.add_exception_handler(Exception, _problem)
    for kind in (ProblemError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _problem)
    return app


def _shown(payment: Payment, request: Request) -> Payment:
    """The redirect's address is the one the merchant reached this server under, and only while it is awaited."""
    if payment.status != "requires_action":
        return payment
    return payment.model_copy(update={"redirect_url": f"{request.base_url}redirect/{payment.id}"})


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
