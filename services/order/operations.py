"""HTTP for operators: orders that are stuck, tried again or cancelled. All of it needs the scope ``admin``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from services.order import store, stuck, views
from services.order.api import Cancellation, Reason, cancel_once, not_found
from services.order.decisions import remind
from services.order.signals import signals
from services.order.stuck import Piece, Stuck
from services.order.views import OrderView
from shared.auth import Principal, requires
from shared.bodies import Body
from shared.commands import IdempotencyKey
from shared.postgres import Database
from shared.telemetry import log

TRIES = 3  # without a clear answer are nothing unusual
Admin = Annotated[Principal, requires("admin")]


class StuckOrders(BaseModel):
    items: list[Stuck]


class Woken(BaseModel):
    """What is due now; empty where nobody outside can be asked."""

    order_id: UUID
    woken: list[Piece]


class OperatorsReason(Body):
    reason: Reason


def routes(database: Database) -> APIRouter:
    router = APIRouter(prefix="/admin/process", tags=["admin"])

    @router.get("/stuck", summary="Orders that wait longer than they should, and for what")
    async def list_stuck(
        _: Admin,
        older_than: Annotated[float, Query(ge=0, le=10**9, description="seconds overdue")] = 60,
        attempts: Annotated[int, Query(ge=0, le=10**6, description="tries that are nothing unusual")] = TRIES,
        limit: Annotated[int, Query(ge=1, le=500, description="of each kind")] = 100,
    ) -> StuckOrders:
        async with database.reading() as db:
            return StuckOrders(items=await stuck.stuck(db, older_than, attempts, limit))

    @router.post("/{order_id}/retry", summary="Ask now what the order waits for; change nothing else")
    async def retry(order_id: UUID, principal: Admin) -> Woken:
        async with database.transaction() as tx:
            orders = await store.load(tx, [order_id])
            if order_id not in orders.by_id:
                raise not_found(order_id)
            order, now = orders.by_id[order_id], datetime.now(UTC)
            woken = await stuck.wake(tx, order_id)
            if said := remind(order, now):
                orders.happen(tx, order, said, orders.cause(order_id, f"remind/{order.version}"), now)
                await store.save(tx, orders)
                woken.append(Piece(what="answers", state=order.state))
            tx.after_commit(signals.payments_due)
            tx.after_commit(signals.parcels_due)
        log.info("tried again by an operator", order_id=str(order_id), by=principal.subject, woken=len(woken))
        return Woken(order_id=order_id, woken=woken)

    @router.post("/{order_id}/cancel", summary="Cancel an order; 202 while the carrier is asked to give parcels back")
    async def cancel(
        order_id: UUID, body: OperatorsReason, response: Response, principal: Admin,
        idempotency_key: IdempotencyKey,
    ) -> OrderView:  # fmt: skip
        cause = await cancel_once(
            database, order_id, Cancellation(reason=body.reason), principal.subject, idempotency_key
        )
        if cause is not None:
            log.warning("cancelled by an operator", order_id=str(order_id), by=principal.subject, reason=body.reason,
                        cause=str(cause))  # fmt: skip
        async with database.reading() as db:
            (found,) = await views.found(db, [order_id])
        assert found is not None
        response.status_code = 202 if found.cancellation_pending else 200
        return found

    return router
