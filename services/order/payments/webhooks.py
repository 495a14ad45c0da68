"""Signed notices of the provider: a hint that may come twice, late or in any order; the order's state decides."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from fastapi import APIRouter, Request, Response

from services.order import store
from services.order.payments.decisions import PaymentReport
from services.order.payments.provider import Provider
from services.order.payments.worker import Outcome, apply
from shared.grouped import Grouped
from shared.postgres import Database
from shared.problems import Problem
from shared.telemetry import log

Notice = tuple[UUID, PaymentReport]


def routes(database: Database, provider: Provider) -> APIRouter:
    router = APIRouter(tags=["webhooks"])

    async def hear(notices: list[Notice]) -> Sequence[bool]:
        async with database.transaction() as tx:
            order_of = await store.orders_of_payments(tx, [payment_id for payment_id, _ in notices])
        known = [Outcome(order_of[id_], report) for id_, report in notices if id_ in order_of]
        if known:
            await apply(database, known)
        return [id_ in order_of for id_, _ in notices]

    heard = Grouped(hear)

    @router.post("/webhooks/payments", status_code=204, summary="Notices of the payment provider, signed by it")
    async def notice(request: Request) -> Response:
        try:
            told = provider.webhook(dict(request.headers), await request.body())
        except ValueError as error:
            raise Problem(401, "Unauthorized", "the signature does not fit", code="bad_signature") from error
        if told is not None and not await heard(told):
            log.warning("notice of an unknown payment", payment_id=str(told[0]))
        return Response(status_code=204)

    return router
