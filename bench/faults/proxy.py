"""Proxies on loopback in a process of their own: what stands between a service and what it needs.

    async with Proxies({"order-postgres": (listen, target)}) as proxies:
        await proxies.cut("order-postgres", "replies")
        await proxies.heal("order-postgres")

The process (`python -m bench.faults.proxy`) takes commands on its input, a JSON array a line, and answers each on its
output. It ends with its input, so it never outlives the program that started it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import uvloop

from bench.faults.forwarding import Direction, Proxy
from deploy.local.supervisor import ROOT

__all__ = ["Direction", "Proxies", "ProxyError", "Stats"]


class ProxyError(Exception):
    """A proxy could not do what it was told, for instance because its port is taken."""


@dataclass(frozen=True)
class Stats:
    """Of one proxy since it was opened; ``requests`` and ``replies`` are bytes, ``dropped`` answers to COMMIT."""

    connections: int
    open: int  # sockets that are open now, two a connection
    requests: int
    replies: int
    dropped: int


class Proxies:
    """Named proxies, each from a port to a port on loopback; open inside the ``async with``. Raises ProxyError."""

    def __init__(self, ports: Mapping[str, tuple[int, int]]):
        self._ports = dict(ports)
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Proxies:
        command = (sys.executable, "-m", "bench.faults.proxy")
        self._process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE)
        try:
            for name, (listen, target) in self._ports.items():
                await self._tell("open", name, listen, target)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._process
        if process and process.returncode is None:
            process.terminate()
            await process.wait()

    async def cut(self, name: str, direction: Direction = "both") -> None:
        """Hold back everything in that direction, like a network that swallows packets; nothing is lost or closed."""
        await self._tell("cut", name, direction)

    async def heal(self, name: str) -> None:
        """All is well again, whatever it was told before; what was held back is delivered in order."""
        await self._tell("heal", name)

    async def refuse(self, name: str) -> None:
        """The host is gone: connections are reset, new ones are refused."""
        await self._tell("refuse", name)

    async def delay(self, name: str, seconds: float) -> None:
        """What is sent from now on arrives so much later, in each direction."""
        await self._tell("delay", name, seconds)

    async def drop_commit_replies(self, name: str, rate: float, seed: int = 0) -> None:
        """Of Postgres's answers to COMMIT lose this share, 0 to 1: what was committed ends in a reset connection."""
        await self._tell("drop_commit_replies", name, rate, seed)

    async def stats(self) -> dict[str, Stats]:
        return {name: Stats(**numbers) for name, numbers in (await self._tell("stats")).items()}

    async def _tell(self, *command: object) -> Any:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise ProxyError("the proxies are not open")
        async with self._turn:
            process.stdin.write(json.dumps(command).encode() + b"\n")
            answer = await process.stdout.readline()
        if not answer:
            raise ProxyError("the process of the proxies has ended")
        said = json.loads(answer)
        if "error" in said:
            raise ProxyError(f"{' '.join(map(str, command))}: {said['error']}")
        return said["result"]


async def _obey(proxies: dict[str, Proxy], verb: str, *arguments: Any) -> object:
    match verb, arguments:
        case "stats", ():
            return {name: proxy.stats() for name, proxy in proxies.items()}
        case "open", (name, listen, target):
            proxies[name] = Proxy(listen, target)
            await proxies[name].open()
        case "cut", (name, ("requests" | "replies" | "both") as direction):
            proxies[name].cut(direction)
        case "heal", (name,):
            await proxies[name].heal()
        case "refuse", (name,):
            proxies[name].refuse()
        case "delay", (name, seconds):
            proxies[name].delay(seconds)
        case "drop_commit_replies", (name, rate, seed):
            proxies[name].drop_commit_replies(rate, seed)
        case _:
            raise ValueError("no such command")
    return None


async def _serve() -> None:
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    proxies: dict[str, Proxy] = {}
    while line := await commands.readline():
        try:
            answer: dict[str, object] = {"result": await _obey(proxies, *json.loads(line))}
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started us: it ends in its own order
    uvloop.run(_serve())
