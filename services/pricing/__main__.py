"""Assembly of the pricing service."""

from pathlib import Path

from services.pricing.api import routes
from services.pricing.handlers import consumers
from shared.app import Parts, Service
from shared.postgres import Database
from shared.settings import Settings


async def assemble(_settings: Settings, database: Database) -> Parts:
    return Parts(consumers, routes(database))


if __name__ == "__main__":
    Service("pricing", Settings, Path(__file__).parent, assemble).run()
