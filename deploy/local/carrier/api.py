"""What comes in: the carrier's HTTP API, and the switches of the sandbox."""

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse

from deploy.local.sandbox.dropping import DroppedConnection
from deploy.local.sandbox.merchant import Key, authorised
from deploy.local.sandbox.pages import Cursor, Limit, Page

from .behaviour import Behaviour
from .depot import Depot
from .models import Move, NoticeRequest, Parcel, ParcelRequest


@dataclass(frozen=True)
class Sandbox:
    depot: Depot
    initial: Behaviour


async def _sandbox(request: Request) -> Sandbox:
    return request.app.state.sandbox


TheSandbox = Annotated[Sandbox, Depends(_sandbox)]
merchant = APIRouter(dependencies=[Depends(authorised)])


@merchant.post("/v1/parcels", status_code=201, response_model=Parcel, summary="Book, once per Idempotency-Key")
async def book(order: ParcelRequest, key: Key, sandbox: TheSandbox, request: Request, response: Response):
    behaviour = sandbox.depot.behaviour
    parcel, created = sandbox.depot.book(key, order, str(request.base_url))
    if not created:  # a retry is answered at once: the faults are those of the first attempt
        response.status_code = 200
        return parcel
    answer = behaviour.answer(order.reference)
    try:
        await asyncio.sleep(behaviour.timeout_seconds if answer == "late" else 0)
    except asyncio.CancelledError:  # the server stops: never answer 500 for what was done
        return DroppedConnection()
    return DroppedConnection() if answer == "dropped" else parcel


@merchant.get("/v1/parcels", summary="The whole log, or a look-up by the merchant's reference")
async def parcels(
    sandbox: TheSandbox, reference: str | None = None, cursor: Cursor = 0, limit: Limit = 100
) -> Page[Parcel]:
    return sandbox.depot.parcels(cursor, limit, reference)


@merchant.get("/v1/parcels/{parcel_id}", summary="One parcel in its present state")
async def parcel(parcel_id: str, sandbox: TheSandbox) -> Parcel:
    return sandbox.depot.parcel(parcel_id)


@merchant.get("/v1/parcels/{parcel_id}/label", response_class=PlainTextResponse, summary="What is put on the parcel")
async def label(parcel_id: str, sandbox: TheSandbox) -> str:
    return sandbox.depot.label(parcel_id)


@merchant.post("/v1/parcels/{parcel_id}/cancel", summary="Cancel a parcel; 409 once it was collected")
async def cancel(parcel_id: str, sandbox: TheSandbox) -> Parcel:
    return sandbox.depot.cancel(parcel_id)


@merchant.post("/sandbox/parcels/{parcel_id}/status", summary="Sandbox: let something happen to a parcel now")
async def move(parcel_id: str, wanted: Move, sandbox: TheSandbox) -> Parcel:
    return sandbox.depot.move(parcel_id, wanted.status)


@merchant.post("/sandbox/parcels/{parcel_id}/notices", status_code=202, summary="Sandbox: send a webhook again")
async def repeat(parcel_id: str, wanted: NoticeRequest, sandbox: TheSandbox) -> Parcel:
    sandbox.depot.repeat(parcel_id, wanted.type)
    return sandbox.depot.parcel(parcel_id)


@merchant.get("/sandbox/behaviour", summary="Sandbox: the rates in force")
async def behaviour(sandbox: TheSandbox) -> Behaviour:
    return sandbox.depot.behaviour


@merchant.put("/sandbox/behaviour", summary="Sandbox: set rates until the restart; one left out is as at the start")
async def behave(wanted: Behaviour, sandbox: TheSandbox) -> Behaviour:
    sandbox.depot.behaviour = sandbox.initial.with_changes(wanted)
    return sandbox.depot.behaviour
