"""What a fault acts upon: a running stack under load, and the hands to harm it."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.clock import Say
from bench.faults import forks
from bench.faults.disks import Disk
from bench.faults.load import Kind, Load
from bench.faults.proxy import Proxies
from bench.platform import SERVICES, Platform
from deploy.local.errors import StackError
from deploy.local.stack import Stack

Env = Mapping[str, Mapping[str, str]]


@dataclass
class Scene:
    """The stack while a fault is on. ``facts`` go into the result as they are."""

    stack: Stack
    platform: Platform
    load: Load
    dice: random.Random
    small: bool
    say: Say
    proxies: Proxies | None = None
    disk: Disk | None = None
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    expected: dict[str, Any] = field(default_factory=dict[str, Any])  # what only this fault may have left behind
    loading: asyncio.Task[None] | None = None
    told: Env = field(default_factory=dict[str, Mapping[str, str]])
    forked: bool = False  # services are children of processes that start them again at once
    unharm: Callable[[], Awaitable[None]] = field(kw_only=True)  # starts services again without the fault's environment

    def did(self, what: str) -> None:
        """Count what was done, for the result."""
        self.facts[what] = self.facts.get(what, 0) + 1

    def env(self, name: str) -> Mapping[str, str]:
        """What a process is told beside the stack's own environment, as that it reaches others through proxies."""
        return self.told.get(name, {})

    def proxy(self) -> Proxies:
        assert self.proxies is not None, "the fault asks for proxies and does not say so"
        return self.proxies

    async def kill(self, name: str, number: int = signal.SIGKILL) -> bool:
        """Send a signal; False when the process does not run just now."""
        try:
            if self.forked and name in SERVICES:
                await asyncio.to_thread(forks.kill, self.stack, name, number)
            else:
                await asyncio.to_thread(self.stack.kill, name, number)
        except StackError:
            return False
        return True

    async def pause(self, name: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so many seconds."""
        if await self.kill(name, signal.SIGSTOP):
            try:
                await asyncio.sleep(seconds)
            finally:
                await self.kill(name, signal.SIGCONT)

    async def all_ready(self, seconds: float = 90) -> None:
        """Wait until every part would serve; raises StackError with the end of a log if one does not."""
        for name in ("kafka", "postgres", *SERVICES):
            await asyncio.to_thread(self.stack.wait_ready, name, seconds)

    async def sleep(self, seconds: float) -> bool:
        """Wait, unless the load ends before; True while it is still going on."""
        assert self.loading is not None
        await asyncio.wait([self.loading], timeout=seconds)
        return not self.loading.done()


@dataclass(frozen=True)
class Fault:
    """A row of the matrix. ``act`` does harm while the load runs, and has healed everything when it returns."""

    name: str
    does: str  # for people
    act: Callable[[Scene], Awaitable[None]]
    orders: int = 2000
    small: int = 60
    rate: float = 80.0  # orders a second
    small_rate: float = 12.0
    drain: float = 120.0  # seconds, from healing until nothing is under way
    kind: Kind = field(default_factory=Kind)
    env: Env = field(default_factory=dict[str, Mapping[str, str]])  # beside the stack's own
    env_of: Callable[[Path], Env] | None = None  # the same, by the stack's directory
    forked: bool = False  # services start again at once after a kill -9
    fresh: bool = False  # a stack of its own for every seed, instead of one for all
    proxied: bool = False
    disk: str | None = None  # whose data lie on a small disk
    in_small: bool = True  # whether `make test` has it
    afterwards: Sequence[Callable[[Scene], Awaitable[Sequence[str]]]] = ()  # further checks at rest: what is wrong
