"""What merchants' APIs have in common: the API key, idempotency keys, and an app that sends webhooks."""

import asyncio
import hmac
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from .database import Database
from .outbox import Outbox
from .problems import ProblemError, answer_problems
from .webhooks import Courier


@dataclass(frozen=True)
class Desk:
    """What a merchant's API runs on."""

    database: Database
    outbox: Outbox
    courier: Courier
    api_key: str


# All dependencies are async: FastAPI would run each plain one in a thread of its own.
async def _desk(request: Request) -> Desk:
    return request.app.state.desk


TheDesk = Annotated[Desk, Depends(_desk)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


async def authorised(desk: TheDesk, bearer: Bearer) -> None:
    if bearer is None or not hmac.compare_digest(bearer.credentials.encode(), desk.api_key.encode()):
        raise ProblemError(401, "Unauthorized", "send Authorization: Bearer <api key>")


async def _key(idempotency_key: Annotated[str | None, Header(max_length=255)] = None) -> str:
    if not idempotency_key:
        raise ProblemError(400, "Idempotency-Key required", "send a key of your own, the same with every retry")
    return idempotency_key


Key = Annotated[str, Depends(_key)]

open_to_all = APIRouter()


@open_to_all.get("/health", summary="Alive, and how many webhooks wait to be delivered")
async def health(desk: TheDesk) -> dict[str, str | int]:
    return {"status": "ok", "webhooks_waiting": desk.outbox.waiting()}


def create_app(title: str, desk: Desk, sandbox: object, *routers: APIRouter) -> FastAPI:
    """Return the app, `sandbox` in its state; its courier runs for as long as the app does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        courier = asyncio.create_task(desk.courier.run())
        yield
        desk.courier.stop()
        await courier
        desk.database.close()

    app = FastAPI(title=title, version="1", lifespan=lifespan)
    app.state.desk, app.state.sandbox = desk, sandbox
    for router in (*routers, open_to_all):
        app.include_router(router)
    answer_problems(app)
    return app
