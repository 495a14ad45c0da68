"""Assembly: settings, ledger, courier, API. Run with `python -m deploy.local.payments`."""

import logging
import os
from pathlib import Path

from fastapi import FastAPI

from deploy.local.sandbox.database import MERCHANT_SCHEMA, Database
from deploy.local.sandbox.merchant import Desk, create_app
from deploy.local.sandbox.outbox import Outbox
from deploy.local.sandbox.rates import webhook_key
from deploy.local.sandbox.server import serve
from deploy.local.sandbox.webhooks import Courier

from .api import Sandbox, merchant, open_to_all
from .behaviour import Behaviour, Settings
from .ledger import Ledger


def assemble(settings: Settings, behaviour: Behaviour) -> FastAPI:
    """Return the provider, its database open. Raises sqlite3.Error when the file cannot be used."""
    database = Database(settings.database, MERCHANT_SCHEMA, Path(__file__).with_name("schema.sql"))
    outbox = Outbox(database)
    ledger = Ledger(database, outbox, behaviour)
    key = webhook_key(settings.webhook_secret.get_secret_value())
    courier = Courier(ledger.settle_due, outbox, settings.webhook_url, key)
    desk = Desk(database, outbox, courier, settings.api_key.get_secret_value())
    return create_app("Sandbox payment provider", desk, Sandbox(ledger, behaviour), merchant, open_to_all)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    serve(assemble(Settings.model_validate({}), Behaviour.of(os.environ)))
