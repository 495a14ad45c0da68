"""Assembly of the customer service."""

from pathlib import Path

from services.customer import handlers, holdings, reviews, sealing_keys
from services.customer.api import routes
from services.customer.keyring import Keyring
from services.customer.people import Masks
from services.customer.settings import CustomerSettings
from services.customer.versions import VERSIONS
from shared.app import Parts, Service
from shared.holdings import route
from shared.postgres import Database


async def assemble(settings: CustomerSettings, database: Database) -> Parts:
    keyring = Keyring(settings.master_key_bytes())
    masks = Masks(settings.masked_emails, settings.masking_channels)
    programme = settings.programme()
    await sealing_keys.check_master_key(database, keyring)
    return Parts(
        handlers.build(keyring, masks, programme),
        [*routes(database, keyring, masks, programme), route(database, "identify_buyers", holdings.load)],
        [
            sealing_keys.rotation(database, keyring, settings.sealing_key_hours),
            reviews.tier_reviews(database, keyring, programme),
        ],
        versions=VERSIONS,
    )


if __name__ == "__main__":
    Service("customer", CustomerSettings, Path(__file__).parent, assemble).run()
