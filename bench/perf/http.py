"""An HTTP/1.1 client that costs little, and sends when it is time to, whatever became of what it has sent before.

It knows what the benchmarks need and no more: requests that were built before, answers with a Content-Length or in
chunks, keep-alive. A request for which no connection is free waits for one; its time runs from when it was due.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import httptools


@dataclass
class Request:
    """``due`` is in seconds from the start of the run; times in an answer are of the monotonic clock."""

    due: float
    content: bytes
    status: int = 0  # 0: no answer
    body: bytes = b""
    answered: float = 0.0
    again: bool = False  # sent twice, since the server had closed the connection meanwhile


@dataclass
class Run:
    """What became of a schedule. ``slips`` are seconds by which this process itself was late to send."""

    requests: Sequence[Request]
    slips: list[float] = field(default_factory=list[float])
    most_waiting: int = 0  # for a free connection, at once


class _Connection(asyncio.Protocol):
    def __init__(self, pool: _Pool):
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._request: Request | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._pool.free(self)

    def send(self, request: Request) -> None:
        assert self._transport is not None
        self._request = request
        self._transport.write(request.content)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        request, self._request = self._request, None
        assert request is not None
        request.status, request.answered = self._parser.get_status_code(), time.monotonic()
        request.body, self._body = b"".join(self._body), []
        self._parser = httptools.HttpResponseParser(self)
        self._pool.done()
        self._pool.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.lost(self, self._request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Pool:
    def __init__(self, host: str, port: int, size: int):
        self._host, self._port, self._size = host, port, size
        self._idle: list[_Connection] = []  # the last one used is used first: the others may go
        self._waiting: deque[Request] = deque()
        self._open = 0
        self._left = 0
        self.empty = asyncio.Event()
        self.most_waiting = 0
        self._connecting: set[asyncio.Task[object]] = set()

    def submit(self, request: Request) -> None:
        self._left += 1
        self.empty.clear()
        if self._idle:
            self._idle.pop().send(request)
        else:
            self._waiting.append(request)
            self.most_waiting = max(self.most_waiting, len(self._waiting))
            self._connect()

    def free(self, connection: _Connection) -> None:
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def done(self) -> None:
        self._left -= 1
        if not self._left:
            self.empty.set()

    def lost(self, connection: _Connection, request: Request | None) -> None:
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        if request is None:
            return
        if request.again:
            request.answered = time.monotonic()
            self.done()
        else:  # placed twice, it is the same order
            request.again = True
            self._waiting.appendleft(request)
            self._connect()

    def close(self) -> None:
        for connection in list(self._idle):
            connection.close()

    def _connect(self) -> None:
        if self._open < self._size:
            self._open += 1
            task = asyncio.ensure_future(self._opened())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _opened(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.create_connection(lambda: _Connection(self), self._host, self._port)
                return
            except OSError:
                await asyncio.sleep(0.1)


async def drive(
    host: str, port: int, requests: Sequence[Request], *, start: float, connections: int, patience: float
) -> Run:
    """Send each request when it is due, ``start`` being a time of the monotonic clock; wait for the last answers."""
    pool, run = _Pool(host, port, connections), Run(requests)
    try:
        for request in requests:
            due = start + request.due
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            run.slips.append(max(0.0, time.monotonic() - due))
            pool.submit(request)
        with contextlib.suppress(TimeoutError):  # what has no answer says so: status 0
            await asyncio.wait_for(pool.empty.wait(), patience)
    finally:
        pool.close()
    run.most_waiting = pool.most_waiting
    return run


def post(path: str, host: str, port: int, token: str, body: bytes, kind: str = "application/json") -> bytes:
    """The bytes of a POST."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
