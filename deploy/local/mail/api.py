"""What is asked over HTTP: the mails that came, pages of them for a browser, and the switches of the sandbox."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from deploy.local.sandbox.database import Database
from deploy.local.sandbox.pages import Cursor, Limit, Page
from deploy.local.sandbox.problems import answer_problems

from .behaviour import Behaviour, Settings
from .mailbox import Mail, Mailbox
from .page import POLICY, listing, reading
from .reception import Reception

SHOWN = 200  # mails on the page of all


@dataclass(frozen=True)
class Sandbox:
    database: Database
    mailbox: Mailbox
    reception: Reception
    initial: Behaviour


async def _sandbox(request: Request) -> Sandbox:
    return request.app.state.sandbox


TheSandbox = Annotated[Sandbox, Depends(_sandbox)]
routes = APIRouter()


@routes.get("/messages", summary="Mails in the order they came; `to` is a recipient's address")
async def messages(sandbox: TheSandbox, to: str | None = None, cursor: Cursor = 0, limit: Limit = 100) -> Page[Mail]:
    return sandbox.mailbox.mails(cursor, limit, to)


@routes.delete("/messages", status_code=204, summary="Forget every mail")
async def clear(sandbox: TheSandbox) -> None:
    sandbox.mailbox.clear()


@routes.get("/messages/{mail_id}", summary="One mail")
async def message(mail_id: str, sandbox: TheSandbox) -> Mail:
    return sandbox.mailbox.mail(mail_id)


@routes.get("/messages/{mail_id}/raw", response_class=Response, summary="One mail as it came")
async def raw(mail_id: str, sandbox: TheSandbox) -> Response:
    return Response(sandbox.mailbox.raw(mail_id), media_type="text/plain; charset=utf-8")


@routes.get("/messages/{mail_id}/page", response_class=HTMLResponse, summary="One mail for a browser")
async def page(mail_id: str, sandbox: TheSandbox) -> HTMLResponse:
    return HTMLResponse(reading(sandbox.mailbox.mail(mail_id)), headers={"content-security-policy": POLICY})


@routes.get("/", response_class=HTMLResponse, summary="The latest mails for a browser")
async def latest(sandbox: TheSandbox) -> HTMLResponse:
    return HTMLResponse(listing(sandbox.mailbox.latest(SHOWN)), headers={"content-security-policy": POLICY})


@routes.get("/health", summary="Alive, and taking connections by SMTP")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@routes.get("/sandbox/behaviour", summary="Sandbox: the rates in force")
async def behaviour(sandbox: TheSandbox) -> Behaviour:
    return sandbox.reception.behaviour


@routes.put("/sandbox/behaviour", summary="Sandbox: set rates until the restart; one left out is as at the start")
async def behave(wanted: Behaviour, sandbox: TheSandbox) -> Behaviour:
    sandbox.reception.behave(sandbox.initial.with_changes(wanted))
    return sandbox.reception.behaviour


def create_app(settings: Settings, sandbox: Sandbox) -> FastAPI:
    """Return the app; it takes mail for as long as it runs. Raises OSError at its start when the port is taken."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        loop = asyncio.get_running_loop()
        smtp = await loop.create_server(sandbox.reception.connection, settings.smtp_host, settings.smtp_port)
        yield
        smtp.close()
        sandbox.database.close()

    app = FastAPI(title="Sandbox mail server", version="1", lifespan=lifespan)
    app.state.sandbox = sandbox
    app.include_router(routes)
    answer_problems(app)
    return app
