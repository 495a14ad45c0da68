"""Connections of the HTTP server: taken promptly, closed when they say nothing, and only so many."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SILENT_SECONDS = 30.0  # for the head of a request, the first one or the next
MAX_CONNECTIONS = 4096  # beyond, new ones are closed unheard; each takes some 15 kB, and a file descriptor
ACCEPTED_AT_ONCE = 16


def listening(config: uvicorn.Config) -> list[socket.socket]:
    """Sockets to serve on, all of the one address.

    uvloop accepts one connection per socket and turn of the loop. With much to do turns are long, and new connections
    would wait for seconds where nobody sees them, before they could even be refused.
    """
    first = config.bind_socket()
    return [first, *(first.dup() for _ in range(ACCEPTED_AT_ONCE - 1))]


class Connection(HttpToolsProtocol):
    """uvicorn limits the silence between two requests. This one also limits it before the first, and within a head."""

    _silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._listen()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._listen()

    def on_headers_complete(self) -> None:
        self._heard()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._heard()
        super().connection_lost(exc)

    def _listen(self) -> None:
        self._heard()
        self._silence = self.loop.call_later(SILENT_SECONDS, self.timeout_keep_alive_handler)

    def _heard(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
