"""A process of its own for what must not wait for others: it is asked over a pipe, and answers there."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any

PATIENCE = 600.0  # seconds for an answer


class ChildError(Exception):
    """The process has ended, or does not answer."""


class Child:
    """``await child.ask(something)`` sends it to the process and returns the answer."""

    def __init__(self, pipe: Connection, name: str):
        self._pipe, self._name = pipe, name

    async def ask(self, what: object) -> Any:
        self.tell(what)
        return await self.answer()

    def tell(self, what: object) -> None:
        self._pipe.send(what)

    async def answer(self) -> Any:
        """The next thing that the process says. Raises ChildError, also with what it failed of."""
        try:
            if not await asyncio.to_thread(self._pipe.poll, PATIENCE):
                raise ChildError(f"{self._name} does not answer")
            found = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise ChildError(f"{self._name} has ended; its last words are above") from error
        return found


@asynccontextmanager
async def child(target: Callable[..., None], *arguments: object) -> AsyncGenerator[Child]:
    """Run ``target(pipe, *arguments)`` in a new process, which is ended with the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Child(ours, target.__module__)
    finally:
        ours.close()
        await asyncio.to_thread(process.join, 5)
        if process.is_alive():
            process.kill()
