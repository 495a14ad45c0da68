"""The gate's place in HTTP: before a token is checked and a body is read."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import orjson
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.overload import Gate, Refusal, current_place

BODY_SECONDS = 20.0  # for the body of a request with new work, or the next piece of a stream: it keeps a place
SMALL = 65_536  # bytes of a body that the server passes over by itself; behind a larger one the connection is closed
PER_SECOND = 500  # refusals that are answered at once; each takes time from what this process has taken
BURST = 50
LONGEST_PAUSE = 1.0  # seconds, for the answers to others
LINGERING = 32  # refused senders of large bodies that are listened to at once
LINGER_SECONDS = 2.0

OVERLOADED = orjson.dumps(Refusal("", 1).problem().body())


class SlowError(HTTPException):
    """A body that does not come. An HTTPException, because FastAPI hides any other raised while it reads a body."""

    def __init__(self) -> None:
        super().__init__(408, f"nothing, or not all, came in {BODY_SECONDS:g} s", headers={"Connection": "close"})


@dataclass(frozen=True)
class Gated:
    """A route with new work; its ``path`` is what metrics call it."""

    path: str
    stream: bool


class Door:
    """Asks the gate about requests of the routes ``sheds`` (method and path), and holds their places."""

    def __init__(self, app: ASGIApp, gate: Gate, sheds: frozenset[tuple[str, str]], streamed: frozenset[str]):
        self._app, self._gate = app, gate
        self._gated = {(method, path): Gated(path, path in streamed) for method, path in sheds}
        self._lingering = 0
        self._refused_until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gated = self._gated.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if gated is None:
            return await self._app(scope, receive, send)
        refusal = self._gate.refusal(stream=gated.stream)
        if refusal is not None:
            scope["route"] = gated
            return await self._refuse(refusal, scope, receive, send)
        place = self._gate.enter(stream=gated.stream)
        current_place.set(place)
        try:
            await self._app(scope, _impatient(receive, stream=gated.stream), send)
        finally:
            place.leave()

    async def _refuse(self, refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer unread. A small body is passed over by the server; behind any other the connection is closed."""
        await self._in_turn()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        answer = [
            (b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(OVERLOADED)),
            (b"retry-after", b"%d" % refusal.retry_after),
        ]  # fmt: skip
        announced = headers.get(b"content-length", b"0")
        waits = b"expect" in headers  # for our word, before it sends the body
        small = announced.isdigit() and int(announced) <= SMALL and not waits and b"transfer-encoding" not in headers
        if not small:
            answer.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 503, "headers": answer})
        linger = not small and not waits and self._lingering < LINGERING
        await send({"type": "http.response.body", "body": OVERLOADED, "more_body": linger})
        if linger:
            await self._linger(receive)
            await send({"type": "http.response.body", "body": b""})

    async def _in_turn(self) -> None:
        """A client that sends again as soon as it is refused is slowed down by this, and the consumers are not."""
        now = asyncio.get_running_loop().time()
        self._refused_until = max(self._refused_until, now - BURST / PER_SECOND) + 1 / PER_SECOND
        self._refused_until = min(self._refused_until, now + LONGEST_PAUSE)
        if self._refused_until > now:
            await asyncio.sleep(self._refused_until - now)

    async def _linger(self, receive: Receive) -> None:
        """Hear a sender out for a moment: closed with something unread, a connection is reset, and the answer lost."""
        self._lingering += 1
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive()).get("more_body", False):
                    pass
        except TimeoutError:
            return
        finally:
            self._lingering -= 1


def _impatient(receive: Receive, *, stream: bool) -> Receive:
    """Raises SlowError where a body, or the next piece of a stream, takes too long."""
    loop = asyncio.get_running_loop()
    until, ended = loop.time() + BODY_SECONDS, False

    async def received() -> Message:
        nonlocal ended
        if ended:  # whoever asks now waits for the client to go away
            return await receive()
        try:
            async with asyncio.timeout_at(loop.time() + BODY_SECONDS if stream else until):
                message = await receive()
        except TimeoutError:
            raise SlowError from None
        ended = not message.get("more_body", False)
        return message

    return received
