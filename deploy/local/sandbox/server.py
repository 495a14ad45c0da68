"""The HTTP server under a sandbox."""

import uvicorn
from fastapi import FastAPI
from pydantic_settings import BaseSettings, SettingsConfigDict

from .dropping import AbortableProtocol


class Listen(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ISTHMUS_HTTP_", extra="ignore")

    host: str = "127.0.0.1"
    port: int = 8090


def server(app: FastAPI, host: str, port: int) -> uvicorn.Server:
    """Return the one kind of server that can drop a connection. On SIGTERM late answers get 2 s, no more."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host,
            port,
            http=AbortableProtocol,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=2,
            timeout_keep_alive=75,  # longer than clients keep theirs, or a reused connection may close under a request
        )
    )


def serve(app: FastAPI) -> None:
    """Serve where ISTHMUS_HTTP_HOST and _PORT say, until SIGTERM."""
    listen = Listen.model_validate({})
    server(app, listen.host, listen.port).run()
