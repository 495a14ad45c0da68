"""An order service in its own database: orders are taken in, answered and paid as in production."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
from fastapi import FastAPI
from nacl.public import PrivateKey
from pydantic import SecretStr

from deploy.local.payments.__main__ import assemble
from deploy.local.payments.behaviour import Behaviour, Settings
from services.order import handlers, intake
from services.order.api import routes
from services.order.intake import OrderBody, Placed
from services.order.payments import webhooks
from services.order.payments.provider import Provider
from services.order.payments.sandbox import SandboxProvider
from services.order.settings import OrderSettings
from services.order.settlement import api as ledger
from shared.app import build_app
from shared.health import Health
from shared.overload import Gate, Limits
from shared.postgres import Database
from shared.topics import HOLDS, IDENTIFICATIONS, QUOTES
from shared.tracing import Trace
from tests.support.http import ISSUER, Issuer, client_of, listening
from tests.support.kernel import deliver, message, rows
from tests.support.orders import held, identified, priced

SECRET = "whsec_" + base64.b64encode(b"a secret of the sandbox").decode()
SCOPES = "orders:read orders:write orders:import"
PRIVATE_KEY = PrivateKey(b"k" * 32)

SETTINGS = OrderSettings(
    database_url="", kafka_bootstrap_servers="", auth_issuer=ISSUER, auth_jwks_url="", payments_url="",
    payments_api_key="merchant", payments_webhook_secret=SECRET, fingerprint_key="a fingerprint key", carrier_url="",
    carrier_api_key="merchant", carrier_webhook_secret=SECRET, auth_token_url="", client_id="order",
    client_secret=SecretStr(""), customer_url="", inventory_url="", pricing_url="",
)  # fmt: skip


def body(reference: str = "shop-1", *, token: str = "tok_ok", **changes: Any) -> dict[str, Any]:
    """Anna orders a RED-LAMP and two BLUE-CUPs."""
    return {
        "channel": "shop",
        "external_reference": reference,
        "currency": "EUR",
        "buyer": {"name": "Anna Ash", "email": "anna@ash.example"},
        "recipient": {
            "name": "Anna Ash",
            "street": "Elm Row 1",
            "city": "Ulm",
            "postal_code": "89073",
            "country": "DE",
        },
        "lines": [{"sku": "RED-LAMP", "quantity": 1}, {"sku": "BLUE-CUP", "quantity": 2}],
        "payment": {"method": "card", "token": token},
    } | changes


async def open_shop(database: Database) -> None:
    """The SKUs and the sealing key that intake needs."""
    async with database.transaction() as tx:
        await tx.db.execute("INSERT INTO known_items VALUES ('RED-LAMP', true, 1), ('BLUE-CUP', true, 1)")
        public = base64.b64encode(bytes(PRIVATE_KEY.public_key)).decode()
        await tx.db.execute("INSERT INTO sealing_keys VALUES ($1, $2, now() - interval '1 day')", uuid4(), public)


async def place(database: Database, *bodies: dict[str, Any]) -> list[UUID]:
    asked = [OrderBody.model_validate(one) for one in bodies]
    async with database.transaction() as tx:
        outcomes = await intake.place(tx, asked, SETTINGS, [Trace.new()] * len(asked))
    assert all(isinstance(one, Placed) for one in outcomes)
    return [one.order_id for one in outcomes if isinstance(one, Placed)]


async def answer(database: Database, order_ids: Sequence[UUID]) -> None:
    """Customer, inventory and pricing say yes: the orders are to be paid."""
    answers = [
        said
        for order_id in order_ids
        for said in (
            message(IDENTIFICATIONS, identified(order_id)),
            message(HOLDS, held(order_id)),
            message(QUOTES, priced(order=order_id)),
        )
    ]
    await deliver(database, handlers.build(SETTINGS.payment_deadline), "join_answers", *answers)


async def paying_order(database: Database, reference: str = "shop-1", *, token: str = "tok_ok") -> UUID:
    (order_id,) = await place(database, body(reference, token=token))
    await answer(database, [order_id])
    return order_id


async def order_row(database: Database, order_id: UUID) -> dict[str, Any]:
    """The order with its payment, and `owed`: captured less refunded less open refunds."""
    (row,) = await rows(
        database,
        """SELECT o.*, p.state AS payment_state, p.captured, p.refunded, p.closing, p.due_at,
                  coalesce(p.captured - p.refunded - coalesce((SELECT sum(amount) FROM refunds r
                           WHERE r.order_id = o.order_id AND r.state = 'requested'), 0), 0) AS owed
           FROM orders o LEFT JOIN payments p USING (order_id) WHERE o.order_id = $1""",
        order_id,
    )
    return dict(row)


async def timeline(database: Database, order_id: UUID) -> list[str]:
    found = await rows(database, "SELECT type FROM timeline WHERE order_id = $1 ORDER BY sequence", order_id)
    return [row["type"] for row in found]


def gate_of(**limits: Any) -> Gate:
    return Gate(Limits("orders", **{"backlog": 10_000, "in_time": 60, **limits}))


def app_of(database: Database, issuer: Issuer, provider: Provider | None = None, gate: Gate | None = None) -> FastAPI:
    gate = gate or gate_of()
    routers = [
        *routes(database, SETTINGS, gate),
        *ledger.routes(database),
        *([webhooks.routes(database, provider)] if provider else []),
    ]
    app = build_app("order", routers, Health(), gate=gate)
    app.state.authenticator = issuer.authenticator()
    return app


@asynccontextmanager
async def counter(
    database: Database, scope: str = SCOPES, provider: Provider | None = None, gate: Gate | None = None
) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of the order service's HTTP API, with a token of these scopes."""
    issuer = Issuer()
    async with client_of(app_of(database, issuer, provider, gate), issuer.token(scope)) as client:
        yield client


@asynccontextmanager
async def sandbox(path: Path, webhook_url: str | None = None, **rates: float) -> AsyncGenerator[str]:
    """The payment provider's sandbox on a port of its own."""
    settings = Settings(
        database=path / "payments.db", api_key=SecretStr("merchant"), webhook_secret=SecretStr(SECRET),
        webhook_url=webhook_url,
    )  # fmt: skip
    behaviour = Behaviour.model_validate({"slow_seconds": 0.1, "timeout_seconds": 0.5, **rates})
    async with listening(assemble(settings, behaviour)) as url:
        yield url


def provider_at(url: str, timeout: float = 0.3) -> SandboxProvider:
    return SandboxProvider(url, "merchant", SECRET, timeout)
