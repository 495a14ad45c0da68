"""What comes in: the provider's HTTP API, its redirect page, and the switches of the sandbox."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse

from deploy.local.sandbox.dropping import DroppedConnection
from deploy.local.sandbox.merchant import Key, authorised
from deploy.local.sandbox.pages import Cursor, Limit, Page

from .behaviour import Behaviour
from .ledger import Ledger
from .models import Payment, PaymentRequest, Refund, RefundRequest


@dataclass(frozen=True)
class Sandbox:
    ledger: Ledger
    initial: Behaviour


async def _sandbox(request: Request) -> Sandbox:
    return request.app.state.sandbox


TheSandbox = Annotated[Sandbox, Depends(_sandbox)]
Outcome = Literal["success", "fail"]

open_to_all = APIRouter()
merchant = APIRouter(dependencies=[Depends(authorised)])


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
    sandbox.ledger.behaviour = sandbox.initial.with_changes(wanted)
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


def _shown(payment: Payment, request: Request) -> Payment:
    """The redirect's address is the one the merchant reached this server under, and only while it is awaited."""
    if payment.status != "requires_action":
        return payment
    return payment.model_copy(update={"redirect_url": f"{request.base_url}redirect/{payment.id}"})
