"""Assembly: settings, mailbox, SMTP, API. Run with `python -m deploy.local.mail`."""

import logging
import os
from pathlib import Path

from fastapi import FastAPI

from deploy.local.sandbox.database import Database
from deploy.local.sandbox.server import serve

from .api import Sandbox, create_app
from .behaviour import Behaviour, Settings
from .mailbox import Mailbox
from .reception import Reception


def assemble(settings: Settings, behaviour: Behaviour) -> FastAPI:
    """Return the mail server, its database open. Raises sqlite3.Error when the file cannot be used."""
    database = Database(settings.database, Path(__file__).with_name("schema.sql"))
    mailbox = Mailbox(database)
    return create_app(settings, Sandbox(database, mailbox, Reception(mailbox, behaviour), behaviour))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    serve(assemble(Settings.model_validate({}), Behaviour.of(os.environ)))
