"""Signed notices of the provider: a hint that may come twice, late or in any order; the order's state decides."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from services.order import store
from services.order.payments.provider import Provider
from services.order.payments.worker import Outcome, apply
from shared.postgres import Database
from shared.problems import Problem
from shared.telemetry import log


def routes(database: Database, provider: Provider) -> APIRouter:
    router = APIRouter(tags=["webhooks"])

    @router.post("/webhooks/payments", status_code=204, summary="Notices of the payment provider, signed by it")
    async def notice(request: Request) -> Response:
        try:
            told = provider.webhook(dict(request.headers), await request.body())
        except ValueError as error:
            raise Problem(401, "Unauthorized", "the signature does not fit", code="bad_signature") from error
        if told is not None:
            payment_id, report = told
            async with database.transaction() as tx:
                order_id = await store.order_of_payment(tx, payment_id)
            if order_id is None:
                log.warning("notice of an unknown payment", payment_id=str(payment_id))
            else:
                await apply(database, [Outcome(order_id, report)])
        return Response(status_code=204)

    return router
