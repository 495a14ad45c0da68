"""Signed notices of the carrier: hints that may come twice, late or in any order; the parcel's state decides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from fastapi import APIRouter, Request, Response

from services.order.shipping.carrier import Carrier
from services.order.shipping.worker import Outcome, apply, parse
from shared.grouped import Grouped
from shared.postgres import Database
from shared.problems import Problem
from shared.telemetry import log


def routes(database: Database, carrier: Carrier, give_up_after: timedelta) -> APIRouter:
    router = APIRouter(tags=["webhooks"])

    async def hear(outcomes: list[Outcome]) -> Sequence[None]:
        await apply(database, outcomes, give_up_after)
        return [None] * len(outcomes)

    heard = Grouped(hear)

    @router.post("/webhooks/carrier", status_code=204, summary="Notices of the carrier, signed by it")
    async def notice(request: Request) -> Response:
        try:
            told = carrier.notice(dict(request.headers), await request.body())
        except ValueError as error:
            raise Problem(401, "Unauthorized", "the signature does not fit", code="bad_signature") from error
        if told is not None:
            reference, booking, report = told
            if (known := parse(reference)) is None:
                log.warning("notice of an unknown parcel")
            else:
                await heard(Outcome(*known, booking=booking, report=report))
        return Response(status_code=204)

    return router
