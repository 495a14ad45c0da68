"""One port on loopback that forwards to another one, until it is told to hold back, refuse, delay or lose."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

from bench.faults.commits import CommitWatch

Direction = Literal["requests", "replies", "both"]
HOST = "127.0.0.1"
HELD = 1 << 20  # bytes of a delayed direction of a connection that are kept; then nothing more is read
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


@dataclass
class Lane:
    """What happens to one direction of all connections."""

    cut: bool = False
    delay: float = 0.0  # seconds
    bytes: int = 0


class _End(asyncio.Protocol):
    """One socket of a connection: what is read here is written to its peer, when the lane lets it."""

    def __init__(self, proxy: Proxy, lane: Lane, watch: CommitWatch | None = None):
        self._proxy, self._lane, self._watch = proxy, lane, watch
        self._peer: _End | None = None
        self._late: deque[tuple[float, int, Callable[[], None]]] = deque()  # when it is due, bytes, what to do
        self._held = 0
        self._peer_full = self._paused = self._gone = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._proxy.ends.add(self)
        if self._watch is None:
            self._proxy.accepted(self)

    def join(self, peer: _End) -> None:
        self._peer, peer._peer = peer, self
        self.settle()
        peer.settle()

    def data_received(self, data: bytes) -> None:
        self._lane.bytes += len(data)
        if self._watch and self._proxy.loses(self._watch, data):
            self.reset()
            self._reset_peer()
        elif self._late or self._lane.delay or self._lane.cut or not self._peer:
            self._hold(partial(self._write, data), len(data))
        else:
            self._write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of one side ends both, after all that was said before it."""
        self._gone = True
        self._hold(self._reset_peer if exc else self._close_peer)

    def pause_writing(self) -> None:
        self._tell_peer(full=True)

    def resume_writing(self) -> None:
        self._tell_peer(full=False)

    def reset(self) -> None:
        if not self.transport.is_closing():
            sock = cast(socket.socket, self.transport.get_extra_info("socket"))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def settle(self) -> None:
        """Write what is due and read on, as far as the lane and the peer let us."""
        blocked = self._lane.cut or self._peer is None
        if self._timer:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        while self._late and not blocked:
            due, size, action = self._late[0]
            if due > loop.time():
                self._timer = loop.call_at(due, self.settle)
                break
            self._late.popleft()
            self._held -= size
            action()
        if self._gone and not self._late:
            self._proxy.ends.discard(self)
        pause = blocked or self._peer_full or self._held > HELD
        if pause != self._paused and not self.transport.is_closing():
            self._paused = pause
            (self.transport.pause_reading if pause else self.transport.resume_reading)()

    def _hold(self, action: Callable[[], None], size: int = 0) -> None:
        self._late.append((asyncio.get_running_loop().time() + self._lane.delay, size, action))
        self._held += size
        self.settle()

    def _write(self, data: bytes) -> None:
        if self._peer and not self._peer.transport.is_closing():
            self._peer.transport.write(data)

    def _close_peer(self) -> None:
        if self._peer:
            self._peer.transport.close()

    def _reset_peer(self) -> None:
        if self._peer:
            self._peer.reset()

    def _tell_peer(self, full: bool) -> None:
        if self._peer:
            self._peer._peer_full = full
            self._peer.settle()


class Proxy:
    """Forwards connections to ``listen`` on to ``target``, both ports on loopback."""

    def __init__(self, listen: int, target: int):
        self._listen, self._target = listen, target
        self._requests, self._replies = Lane(), Lane()
        self._way_out = asyncio.Event()  # requests are not cut
        self._way_out.set()
        self._server: asyncio.Server | None = None
        self._joining: set[asyncio.Task[None]] = set()
        self._rate, self._dice = 0.0, random.Random()
        self._connections = self._dropped = 0
        self.ends: set[_End] = set()  # that are open, or have something left to deliver

    async def open(self) -> None:
        """Listen, unless it does already. Raises OSError if the port is taken."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(
                lambda: _End(self, self._requests), HOST, self._listen, backlog=1024
            )

    def cut(self, direction: Direction) -> None:
        """Hold back that direction, like a network that swallows packets: nothing is lost, closed or refused.

        While requests are cut new connections are accepted, but reach the target only when it is healed.
        """
        self._set_cut(direction in ("requests", "both"), direction in ("replies", "both"))

    async def heal(self) -> None:
        """All is well again: what was held back is delivered in order, and nothing is refused, delayed or lost."""
        self._rate = 0.0
        self.delay(0)
        self._set_cut(False, False)
        await self.open()

    def refuse(self) -> None:
        """The host is gone: connections are reset, new ones are refused."""
        if self._server:
            self._server.close()
            self._server = None
        for task in self._joining:
            task.cancel()
        for end in self.ends:
            end.reset()
        self.ends.clear()

    def delay(self, seconds: float) -> None:
        """What is sent from now on arrives so much later, in each direction."""
        self._requests.delay = self._replies.delay = seconds

    def drop_commit_replies(self, rate: float, seed: int) -> None:
        """Of the answers to COMMIT of Postgres lose this share: the connection is reset in place of the answer."""
        self._rate, self._dice = rate, random.Random(seed)

    def stats(self) -> dict[str, int]:
        return {
            "connections": self._connections,
            "open": len([end for end in self.ends if not end.transport.is_closing()]),
            "requests": self._requests.bytes,
            "replies": self._replies.bytes,
            "dropped": self._dropped,
        }

    def accepted(self, client: _End) -> None:
        self._connections += 1
        task = asyncio.create_task(self._join(client))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    def loses(self, watch: CommitWatch, data: bytes) -> bool:
        """Whether this piece of a reply is lost."""
        if not self._rate:
            watch.pass_by(data)
            return False
        lost = sum(self._dice.random() < self._rate for _ in range(watch.commits(data)))
        self._dropped += lost
        return bool(lost)

    async def _join(self, client: _End) -> None:
        client.settle()
        await self._way_out.wait()
        server = _End(self, self._replies, CommitWatch())
        try:
            await asyncio.get_running_loop().create_connection(lambda: server, HOST, self._target)
        except OSError:
            client.reset()
            self.ends.discard(client)
            return
        client.join(server)

    def _set_cut(self, requests: bool, replies: bool) -> None:
        self._requests.cut, self._replies.cut = requests, replies
        (self._way_out.clear if requests else self._way_out.set)()
        for end in list(self.ends):
            end.settle()
