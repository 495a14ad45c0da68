"""Assembly of the order service."""

from pathlib import Path

from services.order import handlers, knowledge, operations, reminders, views
from services.order.api import routes
from services.order.payments import webhooks as payment_notices
from services.order.payments.sandbox import SandboxProvider
from services.order.payments.worker import PaymentCalls
from services.order.reconciliation import api as reconciliation
from services.order.reconciliation import assembly as reconciler
from services.order.settings import OrderSettings
from services.order.settlement import api as ledger
from services.order.shipping import webhooks as parcel_notices
from services.order.shipping.sandbox import SandboxCarrier
from services.order.shipping.worker import ParcelCalls
from services.order.signals import signals
from services.order.timeline import TIMELINE
from services.order.versions import VERSIONS
from shared.app import Parts, Service
from shared.clients import ServiceClient
from shared.overload import Gate, Limits
from shared.postgres import Database
from shared.work import Worker


async def assemble(settings: OrderSettings, database: Database) -> Parts:
    provider = SandboxProvider(
        settings.payments_url, settings.payments_api_key, settings.payments_webhook_secret, settings.payments_timeout
    )
    payments = PaymentCalls(database, provider)
    signals.payments_due = payments.calls.wake
    carrier = SandboxCarrier(
        settings.carrier_url, settings.carrier_api_key, settings.carrier_webhook_secret, settings.carrier_timeout
    )
    parcels = ParcelCalls(database, carrier, ServiceClient(settings.customer_url, settings), settings.give_up_after)
    signals.parcels_due = parcels.calls.wake

    holders = reconciler.holders_of(settings)

    async def close() -> None:
        await holders.close()
        await payments.close()
        await parcels.close()

    # What is taken should be answered within half of the time that orders wait for answers.
    gate = Gate(
        Limits(
            "orders", backlog=settings.max_open_orders, in_time=settings.answer_deadline / 2,
            in_flight=settings.max_in_flight, turns=max(1, settings.pool_size // 2),
        )
    )  # fmt: skip
    observer = views.Observer(gate)

    async def observe() -> bool:
        async with database.reading() as db:
            await observer.look(db)
        return False

    async def can_seal() -> str | None:
        async with database.transaction() as tx:
            known = await knowledge.current_key(tx)
        return None if known else "no sealing key of the customer service yet: orders cannot be accepted"

    return Parts(
        handlers.build(settings.payment_deadline),
        [
            *routes(database, settings, gate),
            *ledger.routes(database),
            operations.routes(database),
            reconciliation.routes(database),
            payment_notices.routes(database, provider),
            parcel_notices.routes(database, carrier, settings.give_up_after),
        ],
        [
            *payments.calls.workers,
            *parcels.calls.workers,
            Worker("retire sealing keys", lambda: knowledge.retire_keys(database), every=60),
            Worker("observe states", observe, every=1),
            Worker("remind of settlements", lambda: reminders.remind_settled(database), every=60),
            *reconciler.workers(settings, database, provider, holders),
        ],
        {"sealing key": can_seal},
        close,
        gate,
        VERSIONS,
        views=(TIMELINE,),
    )


if __name__ == "__main__":
    Service("order", OrderSettings, Path(__file__).parent, assemble).run()
