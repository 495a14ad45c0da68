"""Assembly of the notify service."""

from pathlib import Path

from services.notify.api import routes
from services.notify.handlers import consumers
from shared.app import Parts, Service
from shared.postgres import Database
from shared.settings import Settings


async def assemble(_settings: Settings, database: Database) -> Parts:
    return Parts(consumers, routes(database))


if __name__ == "__main__":
    Service("notify", Settings, Path(__file__).parent, assemble).run()
