"""Assembly: settings, ledger, courier, API. Run with `python -m deploy.local.payments`."""

import logging
import os

import uvicorn
from fastapi import FastAPI

from .api import Sandbox, create_app
from .behaviour import Behaviour, Listen, Settings, behaviour_of, webhook_key
from .database import Database
from .dropping import AbortableProtocol
from .ledger import Ledger
from .outbox import Outbox
from .webhooks import Courier


def assemble(settings: Settings, behaviour: Behaviour) -> FastAPI:
    """Return the provider, its database open. Raises sqlite3.Error when the file cannot be used."""
    database = Database(settings.database)
    outbox = Outbox(database)
    ledger = Ledger(database, outbox, behaviour)
    key = webhook_key(settings.webhook_secret.get_secret_value())
    courier = Courier(ledger, outbox, settings.webhook_url, key)
    return create_app(Sandbox(database, outbox, ledger, courier, behaviour, settings.api_key.get_secret_value()))


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


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    listen = Listen.model_validate({})
    server(assemble(Settings.model_validate({}), behaviour_of(os.environ)), listen.host, listen.port).run()
