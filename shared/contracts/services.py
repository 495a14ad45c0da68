"""What the services consist of, asked of their own assembly; neither Kafka nor Postgres is needed.

Services are found by name: nothing that is shared imports one.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any, cast

from shared.app import Parts
from shared.health import Health
from shared.operations import api as operations
from shared.postgres import Connection, Database, Pool, Tx
from shared.relay import Relay
from shared.settings import Settings
from shared.topics import SERVICES

ANY_KEY = "A" * 43 + "="  # passes for any text that a service may need: it is base64 of 32 bytes, too


class _Nothing:
    """A connection that answers every question with nothing."""

    def __getattr__(self, name: str) -> Any:
        async def answer(*_: Any, **__: Any) -> Any:
            return [] if name == "fetch" else None

        return answer


class EmptyDatabase(Database):
    """A new service's database: assembly may look, and finds nothing."""

    def __init__(self) -> None:
        super().__init__(cast(Pool, None))

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Tx]:
        yield Tx(cast(Connection, _Nothing()))

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[Connection]:
        yield cast(Connection, _Nothing())


@cache
def all_parts() -> Mapping[str, Parts]:
    """Consumers, routes and workers by service, in the order of ``shared.topics.SERVICES``."""
    return asyncio.run(_assemble_all())


async def _assemble_all() -> Mapping[str, Parts]:
    parts: dict[str, Parts] = {}
    for name in SERVICES:
        assemble = import_module(f"services.{name}.__main__").assemble
        database = EmptyDatabase()
        own: Parts = await assemble(_settings(assemble), database)
        if own.close is not None:
            await own.close()
        operators = operations.routes(name, "", own.consumers, database, "", Relay("", "", Health()))
        parts[name] = replace(own, routes=[*own.routes, operators])
    return parts


def _settings(assemble: Any) -> Settings:
    """The settings that ``assemble`` takes, with something in every place that must be filled."""
    first, *_ = inspect.signature(assemble, eval_str=True).parameters.values()
    settings: type[Settings] = first.annotation
    required = {name: info for name, info in settings.model_fields.items() if info.is_required()}
    filled: dict[str, Any] = {
        name: 1 if info.annotation is int or info.annotation is float else ANY_KEY for name, info in required.items()
    }
    return settings(**filled)
