"""Assembly of the demand process: the streams, and an HTTP side with health and metrics only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import uvicorn
import uvloop
from fastapi import FastAPI

from services.pricing.demand.process import Demand
from services.pricing.demand.settings import DemandSettings
from shared.app import build_app
from shared.health import Health
from shared.telemetry import configure_logging, log

STOP_SECONDS = 10.0
RECOVERY_SECONDS = 300.0  # to read the table back, before this counts as standing still


async def work(demand: Demand, health: Health) -> None:
    """Until cancelled, or until an error ends it."""
    health.beat("demand", within=RECOVERY_SECONDS)
    await demand.engine.start()
    log.info("recovered")
    publishing = asyncio.create_task(demand.publish())
    try:
        await asyncio.wait((publishing, demand.engine.failed), return_when=asyncio.FIRST_COMPLETED)
        for ended in (publishing, demand.engine.failed):
            if ended.done():
                ended.result()
    finally:
        publishing.cancel()


async def serve(settings: DemandSettings) -> bool:
    """Until SIGTERM; False when it ended by an error, so that whoever runs it starts it anew."""
    health = Health()
    demand = Demand(settings, health)
    errors: list[BaseException] = []

    async def unready() -> str | None:
        return demand.engine.unready()

    health.ready_when("streams", unready)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        working = asyncio.create_task(work(demand, health), name="demand")

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()):
                errors.append(error)
                log.error("demand ends", exc_info=error)
                server.should_exit = True

        working.add_done_callback(ended)
        yield
        working.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await working
        with suppress(TimeoutError):
            await asyncio.wait_for(demand.engine.stop(), STOP_SECONDS)
        log.info("stopped")

    app = build_app("demand", (), health, lifespan)
    config = uvicorn.Config(
        app, host=settings.http_host, port=settings.http_port, log_config=None, access_log=False,
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    log.info("started", port=settings.http_port, replica=settings.replica)
    await server.serve()
    return not errors


def main() -> None:
    settings = DemandSettings()  # pyright: ignore[reportCallIssue] - the environment gives the arguments
    configure_logging("demand", settings.log_level)
    raise SystemExit(0 if uvloop.run(serve(settings)) else 1)


if __name__ == "__main__":
    main()
