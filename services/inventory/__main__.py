"""Assembly of the inventory service."""

from pathlib import Path

from services.inventory import holdings
from services.inventory.api import routes
from services.inventory.handlers import consumers
from services.inventory.versions import VERSIONS
from shared.app import Parts, Service
from shared.holdings import route
from shared.postgres import Database
from shared.settings import Settings


async def assemble(_settings: Settings, database: Database) -> Parts:
    held = route(database, "hold_stock", holdings.load)
    return Parts(consumers, [*routes(database), held], versions=VERSIONS)


if __name__ == "__main__":
    Service("inventory", Settings, Path(__file__).parent, assemble).run()
