"""Assembly of the notify service."""

from pathlib import Path

from services.notify import handlers
from services.notify.api import routes
from services.notify.mailing import Mailing
from services.notify.settings import NotifySettings
from services.notify.versions import VERSIONS
from shared.app import Parts, Service
from shared.postgres import Database


async def assemble(settings: NotifySettings, database: Database) -> Parts:
    if not settings.mail:
        return Parts(handlers.build(settings.rules), routes(database), versions=VERSIONS)
    mailing = Mailing(database, settings)
    return Parts(
        handlers.build(settings.rules, mailing.calls.wake), routes(database), mailing.calls.workers,
        close=mailing.close, versions=VERSIONS,
    )  # fmt: skip


if __name__ == "__main__":
    Service("notify", NotifySettings, Path(__file__).parent, assemble).run()
