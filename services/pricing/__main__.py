"""Assembly of the pricing service."""

from pathlib import Path

from services.pricing import demand_store, quotes
from services.pricing.api import routes
from services.pricing.handlers import consumers
from services.pricing.settings import PricingSettings
from shared.app import Parts, Service
from shared.postgres import Database
from shared.work import Worker


async def assemble(settings: PricingSettings, database: Database) -> Parts:
    forgetting = [
        Worker("forget quotes", lambda: quotes.forget(database), every=600),
        Worker("forget demand", lambda: demand_store.forget(database), every=600),
    ]
    return Parts(consumers, routes(database, settings.quote_minutes), forgetting)


if __name__ == "__main__":
    Service("pricing", PricingSettings, Path(__file__).parent, assemble).run()
