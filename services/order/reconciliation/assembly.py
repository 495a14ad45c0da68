"""Assembly of the reconciler: who is asked, how often, and what the process runs for it."""

from __future__ import annotations

from services.order.payments.provider import Provider
from services.order.reconciliation import findings
from services.order.reconciliation.findings import Pace
from services.order.reconciliation.holders import Holders
from services.order.reconciliation.orders import OrderReconciler
from services.order.reconciliation.payments import PaymentReconciler
from services.order.settings import OrderSettings
from shared.clients import ServiceClient
from shared.kafka import bounds
from shared.postgres import Database
from shared.topics import ORDERS
from shared.work import Worker


def holders_of(settings: OrderSettings) -> Holders:
    """The services that hold something for orders."""
    urls = {"inventory": settings.inventory_url, "customer": settings.customer_url, "pricing": settings.pricing_url}
    return Holders({name: ServiceClient(url, settings) for name, url in urls.items()})


def workers(settings: OrderSettings, database: Database, provider: Provider, holders: Holders) -> list[Worker]:
    """None where the reconciler is switched off."""
    pace = Pace(
        settings.reconcile_seconds, settings.reconcile_rest_seconds, settings.reconcile_pass_seconds,
        settings.reconcile_recent_days,
    )  # fmt: skip
    if not pace.every:
        return []

    async def ends() -> dict[int, int]:
        found = await bounds(settings.kafka_bootstrap_servers, [ORDERS.name])
        return {partition: end for (_, partition), (_, end) in found.items()}

    return [
        OrderReconciler(database, holders, ends, pace).worker,
        PaymentReconciler(database, provider, pace).worker,
        Worker("show drift", lambda: findings.show(database), every=min(5.0, pace.every)),
        Worker("clear findings", lambda: findings.clear(database), every=3600),
    ]
