"""Further replicas of a service, beside the one that the stack's supervisor keeps running."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from deploy.local.environment import spare_port
from deploy.local.errors import StackError
from deploy.local.stack import Stack
from deploy.local.supervision import answers
from deploy.local.supervisor import ROOT

# In the child, and not in a preexec_fn: between fork and exec a program with threads should do next to nothing.
_PROGRAM = """
import runpy, signal, sys
from deploy.local.processes import die_with_parent
die_with_parent(signal.SIGKILL)
runpy.run_module(sys.argv.pop(), run_name="__main__", alter_sys=True)
"""


class Replica:
    """A running replica. Nobody starts it again: after `kill` or `stop` it is gone."""

    def __init__(self, name: str, port: int, process: Process):
        self.name, self.port, self.process = name, port, process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def wait_ready(self, seconds: float = 90) -> None:
        """Returns when it would serve a request; raises StackError if it ends or does not get there."""
        until = time.monotonic() + seconds
        while not await asyncio.to_thread(answers, self.port, "/health/ready"):
            if self.process.returncode is not None or time.monotonic() > until:
                raise StackError(f"{self.name} did not become ready. See its log.")
            await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """As by a crash; it is gone when this returns."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """In good order; it is gone when this returns. A paused one goes on first."""
        if self.process.returncode is None:
            self.resume()
        await self._end(signal.SIGTERM)

    def pause(self) -> None:
        """It stands still, with all its connections open, as on a machine that sleeps."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def _end(self, number: int) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)
            await self.process.wait()


@asynccontextmanager
async def replica(
    stack: Stack, service: str, number: int = 1, env: Mapping[str, str] | None = None, wait: float = 90
) -> AsyncGenerator[Replica]:
    """Replica ``number`` of ``service``, ready within ``wait`` seconds (with 0: just started); killed at the end.

    It is told what `stack.env` says, changed by ``env``, with a port and a name of its own: a new member of the
    service's consumer groups. Its log is among the stack's. Raises StackError if it does not become ready.
    """
    name, port = f"{service}-{number}", spare_port(stack.ports.values())
    told = {**os.environ, "PYTHONUNBUFFERED": "1", **stack.env(service), **(env or {})}
    told |= {"ISTHMUS_HTTP_PORT": str(port), "ISTHMUS_REPLICA": name}
    with stack.log(name).open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROGRAM, f"services.{service}", cwd=ROOT, env=told,
            stdin=DEVNULL, stdout=log, stderr=STDOUT,
        )  # fmt: skip
    started = Replica(name, port, process)
    try:
        if wait:
            await started.wait_ready(wait)
        yield started
    finally:
        await started.kill()
