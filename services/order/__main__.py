"""Assembly of the order service."""

from pathlib import Path

from services.order import handlers, knowledge, views
from services.order.api import routes
from services.order.payments import webhooks
from services.order.payments.sandbox import SandboxProvider
from services.order.payments.worker import PaymentWorker
from services.order.settings import OrderSettings
from services.order.signals import signals
from shared.app import Parts, Service
from shared.postgres import Database
from shared.work import Worker


async def assemble(settings: OrderSettings, database: Database) -> Parts:
    provider = SandboxProvider(
        settings.payments_url, settings.payments_api_key, settings.payments_webhook_secret, settings.payments_timeout
    )
    payments = PaymentWorker(database, provider)
    signals.payments_due = payments.calling.wake

    async def observe() -> bool:
        async with database.reading() as db:
            await views.observe(db)
        return False

    async def can_seal() -> str | None:
        async with database.transaction() as tx:
            known = await knowledge.current_key(tx)
        return None if known else "no sealing key of the customer service yet: orders cannot be accepted"

    return Parts(
        handlers.build(settings.payment_deadline),
        [*routes(database, settings), webhooks.routes(database, provider)],
        [
            payments.calling,
            payments.storing,
            Worker("retire sealing keys", lambda: knowledge.retire_keys(database), every=60),
            Worker("observe states", observe, every=5),
        ],
        {"sealing key": can_seal},
        payments.close,
    )


if __name__ == "__main__":
    Service("order", OrderSettings, Path(__file__).parent, assemble).run()
