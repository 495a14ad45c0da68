"""A service as a process: HTTP, consumers, workers and the relay, started and stopped together."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import uvicorn
import uvloop
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared import drift, idempotency, middleware, past, problems, rebuild
from shared.auth import Authenticator
from shared.connections import Connection, listening
from shared.consume import Consumers
from shared.health import Check, Health
from shared.loop import ConsumerLoop, Wiring
from shared.migrate import migrate
from shared.operations import api as operations
from shared.overload import Gate
from shared.postgres import Database
from shared.relay import Relay
from shared.settings import Settings
from shared.telemetry import configure_logging, log
from shared.topics import dead_letters
from shared.views import View, views_of
from shared.work import Worker

S = TypeVar("S", bound=Settings)

RESERVED = 4  # of a service's connections to its database, for its consumers
# Objects more than were freed before the collector looks at the youngest of them; collections before it looks further.
COLLECT_AFTER = (50_000, 20, 50)


@dataclass
class Parts:
    """What a service adds to the kernel, built once its database is open."""

    consumers: Consumers = field(default_factory=Consumers)
    routes: Sequence[APIRouter] = ()
    workers: Sequence[Worker] = ()
    ready: Mapping[str, Check] = field(default_factory=dict[str, Check])
    close: Callable[[], Awaitable[None]] | None = None
    gate: Gate | None = None  # before the routes that are marked "x-sheds"
    versions: Sequence[drift.Versions] = ()  # compared with what the service's topics show
    views: Sequence[View] = ()  # that no consumer keeps, and that can be rebuilt like those that one does

    @property
    def all_views(self) -> Sequence[View]:
        """What can be rebuilt: by consumers, then the rest."""
        return (*views_of(self.consumers), *self.views)


@dataclass
class Service(Generic[S]):
    """One service: ``run()`` serves until SIGTERM; with the argument ``migrate`` it brings the schema up to date.

    With ``past`` it compares the database with Kafka's log; it exits with 4, then and while serving, if the database
    is an older one. With ``rebuild NAME`` it builds a view anew, also beside a process that serves.

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
        elif sys.argv[1:] == ["past"]:
            raise SystemExit(asyncio.run(past.show(self.name, settings.database_url, settings.kafka_bootstrap_servers)))
        elif sys.argv[1:2] == ["rebuild"]:
            raise SystemExit(asyncio.run(self._rebuild(settings, sys.argv[2:])))
        elif sys.argv[1:]:
            raise SystemExit(f"usage: python -m services.{self.name} [migrate | past | rebuild [VIEW ... [--anew]]]")
        else:
            try:
                uvloop.run(self._serve(settings))
            except past.BehindError:  # the log has said so
                raise SystemExit(past.BEHIND) from None

    async def _rebuild(self, settings: S, names: Sequence[str]) -> int:
        database = await Database.open(settings.database_url, max_size=2)
        try:
            parts = await self.assemble(settings, database)
            if parts.close is not None:  # what it asks of others is not needed here
                await parts.close()
            return await rebuild.show(parts.all_views, names, settings.database_url, settings.kafka_bootstrap_servers)
        finally:
            await database.close()

    async def _serve(self, settings: S) -> None:
        health = Health()
        database = await Database.open(settings.database_url, max_size=max(1, settings.pool_size - RESERVED))
        own_past = past.Past(self.name, past.topics_of(self.name), database, settings.kafka_bootstrap_servers, health)
        try:
            await own_past.first_look()
        except past.BehindError:
            await database.close()
            raise
        # Consumers have connections of their own: a crowd of requests cannot keep them waiting for one.
        consuming_database = await Database.open(settings.database_url, max_size=min(settings.pool_size, RESERVED))
        relay = Relay(settings.database_url, settings.kafka_bootstrap_servers, health)
        relay.before_sending = own_past.before_sending
        database.on_outbox = consuming_database.on_outbox = relay.wake
        parts = await self.assemble(settings, database)
        wiring = Wiring(
            service=self.name, replica=settings.replica, bootstrap_servers=settings.kafka_bootstrap_servers,
            dead_letters=dead_letters(self.name), database=consuming_database, health=health,
        )  # fmt: skip
        loops = [ConsumerLoop(subscription, wiring) for subscription in parts.consumers.subscriptions]
        watching = drift.watch(
            parts.versions, database, settings.kafka_bootstrap_servers, lambda: relay.active, settings.drift_seconds
        )
        workers = [*parts.workers, *watching, _housekeeping(database, settings)]

        async def database_answers() -> str | None:
            async with database.reading() as connection:
                await connection.fetchval("SELECT 1", timeout=2)
            return None

        health.ready_when("database", database_answers)
        for name, check in parts.ready.items():
            health.ready_when(name, check)

        async def once_compared(run: Callable[[], Awaitable[None]]) -> None:
            """What is taken from others or done outside cannot be taken back."""
            if await own_past.compared():
                await run()

        @asynccontextmanager
        async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
            comparing = asyncio.create_task(own_past.run(), name="past")
            consuming = [asyncio.create_task(once_compared(loop.run), name=f"consume {loop.name}") for loop in loops]
            working = [
                asyncio.create_task(once_compared(partial(worker.run, health)), name=worker.name) for worker in workers
            ]
            relaying = asyncio.create_task(relay.run(), name="relay")
            _calm_collector()
            log.info("started", port=settings.http_port, replica=settings.replica)
            yield
            # First what takes work in, last what sends it out.
            own_past.stop()
            for loop in loops:
                loop.stop()
            for worker in workers:
                worker.stop()
            await _finish([comparing, *consuming, *working], 10)
            relay.stop()
            await _finish([relaying], 5)
            if parts.close is not None:
                await parts.close()
            await asyncio.wait_for(asyncio.gather(database.close(), consuming_database.close()), 5)
            log.info("stopped")

        operators = operations.routes(
            self.name, settings.replica, parts.consumers, database, settings.kafka_bootstrap_servers, relay
        )
        app = build_app(self.name, [*parts.routes, operators], health, lifespan, parts.gate)
        app.state.authenticator = Authenticator(settings.auth_issuer, settings.auth_audience, settings.auth_jwks_url)
        config = uvicorn.Config(
            app, host=settings.http_host, port=settings.http_port, log_config=None, access_log=False,
            timeout_graceful_shutdown=10, timeout_keep_alive=30, backlog=2048, http=Connection,
        )  # fmt: skip
        server = uvicorn.Server(config)

        def end() -> None:
            server.should_exit = True

        own_past.on_behind = end
        await server.serve(sockets=listening(config))
        if own_past.behind is not None:
            raise own_past.behind


def build_app(
    name: str, routes: Sequence[APIRouter], health: Health, lifespan: Any = None, gate: Gate | None = None
) -> FastAPI:
    """The HTTP side of a service: its routes, health and metrics. Only these two are open."""
    app = FastAPI(
        title=f"Isthmus {name}", version="1", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None,
        default_response_class=JSONResponse, redirect_slashes=False,
    )  # fmt: skip
    problems.install(app)
    app.include_router(_operations(health))
    for router in routes:
        app.include_router(router)
    middleware.install(app, gate)
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


def _calm_collector() -> None:
    """What is there now stays, and need not be looked through again; a batch makes many objects and hardly a cycle."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


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
