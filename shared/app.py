"""A service as a process: HTTP, consumers, workers and the relay, started and stopped together."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import uvicorn
import uvloop
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared import idempotency, middleware, problems
from shared.auth import Authenticator
from shared.consume import Consumers
from shared.health import Check, Health
from shared.loop import ConsumerLoop, Wiring
from shared.migrate import migrate
from shared.postgres import Database
from shared.relay import Relay
from shared.settings import Settings
from shared.telemetry import configure_logging, log
from shared.topics import dead_letters
from shared.work import Worker

S = TypeVar("S", bound=Settings)


@dataclass
class Parts:
    """What a service adds to the kernel, built once its database is open."""

    consumers: Consumers = field(default_factory=Consumers)
    routes: Sequence[APIRouter] = ()
    workers: Sequence[Worker] = ()
    ready: Mapping[str, Check] = field(default_factory=dict[str, Check])
    close: Callable[[], Awaitable[None]] | None = None


@dataclass
class Service(Generic[S]):
    """One service: ``run()`` serves until SIGTERM; with the argument ``migrate`` it brings the schema up to date.

    ``assemble`` gets the settings and the open database and returns the service's parts.
    """

    name: str
    settings: type[S]
    folder: Path
    assemble: Callable[[S, Database], Awaitable[Parts]]

    def run(self) -> None:
        settings = self.settings()  # pyright: ignore[reportCallIssue] - the environment gives the arguments
        configure_logging(self.name, settings.log_level)
        if sys.argv[1:] == ["migrate"]:
            done = asyncio.run(migrate(settings.database_url, self.folder / "migrations"))
            sys.stdout.write(f"{self.name}: {len(done)} migrations applied\n")
        elif sys.argv[1:]:
            raise SystemExit(f"usage: python -m services.{self.name} [migrate]")
        else:
            uvloop.run(self._serve(settings))

    async def _serve(self, settings: S) -> None:
        health = Health()
        database = await Database.open(settings.database_url, max_size=settings.pool_size)
        relay = Relay(settings.database_url, settings.kafka_bootstrap_servers, health)
        database.on_outbox = relay.wake
        parts = await self.assemble(settings, database)
        wiring = Wiring(
            service=self.name, replica=settings.replica, bootstrap_servers=settings.kafka_bootstrap_servers,
            dead_letters=dead_letters(self.name), database=database, health=health,
        )  # fmt: skip
        loops = [ConsumerLoop(subscription, wiring) for subscription in parts.consumers.subscriptions]
        workers = [*parts.workers, _housekeeping(database, settings)]

        async def database_answers() -> str | None:
            async with database.reading() as connection:
                await connection.fetchval("SELECT 1", timeout=2)
            return None

        health.ready_when("database", database_answers)
        for name, check in parts.ready.items():
            health.ready_when(name, check)

        @asynccontextmanager
        async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
            consuming = [asyncio.create_task(loop.run(), name=f"consume {loop.name}") for loop in loops]
            working = [asyncio.create_task(worker.run(health), name=worker.name) for worker in workers]
            relaying = asyncio.create_task(relay.run(), name="relay")
            log.info("started", port=settings.http_port, replica=settings.replica)
            yield
            # First what takes work in, last what sends it out.
            for loop in loops:
                loop.stop()
            for worker in workers:
                worker.stop()
            await _finish([*consuming, *working], 10)
            relay.stop()
            await _finish([relaying], 5)
            if parts.close is not None:
                await parts.close()
            await asyncio.wait_for(database.close(), 5)
            log.info("stopped")

        app = build_app(self.name, parts.routes, health, lifespan)
        app.state.authenticator = Authenticator(settings.auth_issuer, settings.auth_audience, settings.auth_jwks_url)
        config = uvicorn.Config(
            app, host=settings.http_host, port=settings.http_port, log_config=None, access_log=False,
            timeout_graceful_shutdown=10, timeout_keep_alive=30, backlog=2048,
        )  # fmt: skip
        await uvicorn.Server(config).serve()


def build_app(name: str, routes: Sequence[APIRouter], health: Health, lifespan: Any = None) -> FastAPI:
    """The HTTP side of a service: its routes, health and metrics. Only these two are open."""
    app = FastAPI(
        title=f"Isthmus {name}", version="1", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None,
        default_response_class=JSONResponse, redirect_slashes=False,
    )  # fmt: skip
    problems.install(app)
    app.include_router(_operations(health))
    for router in routes:
        app.include_router(router)
    middleware.install(app)
    return app


def _operations(health: Health) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/health/live", summary="Does every loop make progress?")
    async def live() -> JSONResponse:
        stuck = health.stuck()
        return JSONResponse({"status": "stuck" if stuck else "live", "stuck": stuck}, 503 if stuck else 200)

    @router.get("/health/ready", summary="Can it take traffic?")
    async def ready() -> JSONResponse:
        problems_ = await health.unready()
        return JSONResponse(
            {"status": "unready" if problems_ else "ready", "problems": problems_}, 503 if problems_ else 200
        )

    @router.get("/metrics", summary="Prometheus metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


def _housekeeping(database: Database, settings: Settings) -> Worker:
    async def turn() -> bool:
        async with database.transaction() as tx:
            await tx.db.execute("SELECT roll_inbox($1)", settings.inbox_days)
        async with database.transaction() as tx:  # apart: the first locks the inbox
            return await idempotency.forget(tx)

    return Worker("housekeeping", turn, every=3600)


async def _finish(tasks: Sequence[asyncio.Task[Any]], seconds: float) -> None:
    """Wait for tasks that were asked to stop; those that do not are cancelled."""
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            log.warning("had to be cancelled", task=task.get_name())
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
