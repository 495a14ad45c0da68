"""Assembly of the pricing service."""

from pathlib import Path

from services.pricing import demand_store, holdings, quotes
from services.pricing.api import routes
from services.pricing.handlers import consumers
from services.pricing.settings import PricingSettings
from services.pricing.versions import VERSIONS
from shared.app import Parts, Service
from shared.holdings import route
from shared.postgres import Database
from shared.work import Worker


async def assemble(settings: PricingSettings, database: Database) -> Parts:
    forgetting = [
        Worker("forget quotes", lambda: quotes.forget(database), every=600),
        Worker("forget demand", lambda: demand_store.forget(database), every=600),
    ]
    held = route(database, "price_orders", holdings.load)
    return Parts(consumers, [*routes(database, settings.quote_minutes), held], forgetting, versions=VERSIONS)


if __name__ == "__main__":
    Service("pricing", PricingSettings, Path(__file__).parent, assemble).run()
