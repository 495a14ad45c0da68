"""Closing a connection without an answer, which ASGI has no word for."""

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol


class AbortableProtocol(H11Protocol):
    """Puts the connection's `abort` into the state of each of its requests."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "abort": transport.abort}


class DroppedConnection(Response):
    """A response that is none: the client sees the connection close."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["abort"]()
        while (await receive())["type"] != "http.disconnect":  # else the server would answer 500 for us
            pass
