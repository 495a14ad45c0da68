"""A shop on the running platform, and its customers: what the tests of flows do and look at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
import httpx2

from bench import invariants
from bench.platform import SERVICES, Platform
from shared.postgres import Pool, Row

T = TypeVar("T")

ENVIRONMENT = {
    "order": {
        "ISTHMUS_ANSWER_DEADLINE": "30", "ISTHMUS_PAYMENT_DEADLINE": "20", "ISTHMUS_PAYMENTS_TIMEOUT": "1.5",
        "ISTHMUS_CARRIER_TIMEOUT": "1.5",
    },
    "issuer": {"ISSUER_ALLOW_LIFETIME": "1"},
    "payments": {"SANDBOX_TIMEOUT_SECONDS": "3", "SANDBOX_SLOW_SECONDS": "0.7"},
    "carrier": {"SANDBOX_MOVES_BY_ITSELF": "false", "SANDBOX_PROMISE_SECONDS": "3600", "SANDBOX_TIMEOUT_SECONDS": "3"},
}  # fmt: skip
OPEN = ("placed", "paying")
AFTERWARDS = ("CancellationRequested", "CancellationRefused", "OrderSettled", "OrderClosed")
ANY = range(100, 600)  # every status is an answer


async def until(what: str, look: Callable[[], Awaitable[T | None]], seconds: float = 15) -> T:
    """What ``look`` returns, once that is something; fails after ``seconds``."""
    give_up = time.monotonic() + seconds
    while not (found := await look()):
        assert time.monotonic() < give_up, f"after {seconds} s still not: {what}"
        await asyncio.sleep(0.05)
    return found


@dataclass
class Market:
    """Red lamps at 24.90 GBP and blue cups at 6.50; every test has its own SKUs, so that tests cannot meet."""

    platform: Platform
    acknowledged: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    _numbers: count[int] = field(default_factory=count)
    _databases: dict[str, Pool] = field(default_factory=dict[str, Pool])
    _run: str = field(default_factory=lambda: uuid4().hex[:8])

    async def open(self) -> None:
        for service in SERVICES:
            url = self.platform.stack.database_url(service)
            self._databases[service] = await asyncpg.create_pool(url, min_size=1, max_size=3)
        houses = [
            {"code": "leeds", "name": "Leeds", "country": "GB"},
            {"code": "lyon", "name": "Lyon", "country": "FR"},
        ]
        await self.platform.catalogue([{"sku": "nothing", "name": "Nothing"}], warehouses=houses, receipts=[], key="0")

        async def can_seal() -> bool:
            return bool(await self.rows("order", "SELECT FROM sealing_keys"))

        await until("the order service has heard of a sealing key", can_seal)

    async def close(self) -> None:
        for pool in self._databases.values():
            await pool.close()

    async def rows(self, service: str, query: str, *arguments: Any) -> Sequence[Row]:
        return await self._databases[service].fetch(query, *arguments)

    async def ask(self, service: str, method: str, path: str, **request: Any) -> httpx2.Response:
        """One request; any answer is an answer."""
        return await self.platform.ask(service, method, path, expect=ANY, patience=0, **request)

    # What there is to buy

    def name(self, what: str) -> str:
        """A name that nobody else uses."""
        return f"{what}-{self._run}-{next(self._numbers)}"

    async def lamps_and_cups(self, lamps: int = 100, cups: int = 100) -> tuple[str, str]:
        lamp, cup = self.name("red-lamp"), self.name("blue-cup")
        await self.stock({lamp: ("24.90", lamps), cup: ("6.50", cups)})
        return lamp, cup

    async def stock(self, goods: Mapping[str, tuple[str, int]], warehouse: str = "leeds") -> None:
        """New products with price and units, known to all services when this returns."""
        items = [{"sku": sku, "name": "A thing"} for sku in goods]
        receipts = [
            {"sku": sku, "warehouse": warehouse, "quantity": units, "unit_cost": "3.00", "currency": "GBP"}
            for sku, (_, units) in goods.items()
            if units
        ]
        key = self.name("stock")
        await self.platform.catalogue(items, warehouses=(), receipts=receipts, key=key)
        await self.platform.prices("main", "GBP", {sku: price for sku, (price, _) in goods.items()}, key)

        async def known() -> bool:
            orders = await self.rows("order", "SELECT FROM known_items WHERE sku = ANY($1)", list(goods))
            lines = [{"sku": sku, "quantity": 1} for sku in goods]
            quote = {"currency": "GBP", "country": "GB", "lines": lines}
            return len(orders) == len(goods) and (await self.ask("pricing", "POST", "/quotes", json=quote)).is_success

        await until("everybody knows the goods", known)

    async def available(self, sku: str) -> int:
        return (await self.ask("inventory", "GET", f"/stock/{sku}")).json()["available"]

    async def customer(self, points: int = 0) -> str:
        answer = await self.platform.ask("customer", "POST", "/customers", json={"email": f"{self.name('ann')}@x.org"})
        id_ = answer.json()["customer_id"]
        if points:
            given = {"points": points, "reason": "welcome"}
            await self.platform.ask("customer", "POST", f"/customers/{id_}/points", json=given, key=self.name("points"))
        return id_

    # Orders

    def order(self, *lines: tuple[str, int], token: str = "tok_ok", **more: Any) -> dict[str, Any]:
        return {
            "channel": "web",
            "external_reference": self.name("order"),
            "currency": "GBP",
            "buyer": {"email": f"{self.name('bob')}@example.org"},
            "recipient": {"name": "Bob", "street": "1 High Street", "city": "Leeds", "postal_code": "LS1 4AP",
                          "country": "GB"},
            "lines": [{"sku": sku, "quantity": quantity} for sku, quantity in lines],
            "payment": {"method": "card", "token": token},
            **more,
        }  # fmt: skip

    async def place(self, order: Mapping[str, Any], **request: Any) -> str:
        """The id of the order placed; sent again until it is accepted."""
        answer = await self.platform.ask("order", "POST", "/orders", json=order, **request)
        order_id: str = answer.json()["order_id"]
        self.acknowledged.append((order["channel"], order["external_reference"], order_id))
        return order_id

    async def buy(self, *lines: tuple[str, int], token: str = "tok_ok", seconds: float = 20, **more: Any) -> Any:
        """Place an order and return it once it is confirmed or ended."""
        return await self.outcome(await self.place(self.order(*lines, token=token, **more)), seconds)

    async def look(self, order_id: str) -> Any:
        return (await self.platform.ask("order", "GET", f"/orders/{order_id}")).json()

    async def outcome(self, order_id: str, seconds: float = 20) -> Any:
        async def ended() -> Any:
            order = await self.look(order_id)
            return order if order["state"] not in OPEN else None

        return await until(f"order {order_id} has an outcome", ended, seconds)

    async def cancel(self, order_id: str, key: str | None = None, **body: Any) -> httpx2.Response:
        path = f"/orders/{order_id}/cancellations"
        return await self.ask("order", "POST", path, json=body, key=key or self.name("cancel"))

    async def paying(self, order_id: str, payment: str) -> Any:
        """The order once its payment is in this state."""

        async def there() -> Any:
            order = await self.look(order_id)
            return order if order["payment"] and order["payment"]["state"] == payment else None

        return await until(f"payment of {order_id} is {payment}", there)

    async def at_the_bank(self, order: Any, outcome: str) -> httpx2.Response:
        path = "/" + order["payment"]["redirect_url"].split("/", 3)[3]
        return await self.ask("payments", "POST", path, params={"outcome": outcome})

    async def kept_money(self, order_id: str) -> Decimal:
        """What the provider, and so the order, keeps of the buyer's money, refunds under way taken off."""
        payment = (await self.look(order_id))["payment"]
        if payment is None:
            return Decimal(0)
        theirs = await self.provider("GET", "/v1/payments", params={"reference": payment["payment_id"]})
        kept = [
            Decimal(one["amount"]) - Decimal(one["refunded"]) if one["status"] == "captured" else Decimal(0)
            for one in theirs.json()["data"]
        ]
        assert len(kept) <= 1, f"paid {len(kept)} times"
        return sum(kept, Decimal(0))

    async def gives_everything_back(self, order_id: str) -> None:
        """Within seconds nothing is held for the order: no stock, no coupon, no quote, no points, no money."""

        async def nothing_kept() -> bool:
            held = [
                *await self.rows("inventory", "SELECT FROM hold_lines WHERE order_id = $1", order_id),
                *await self.rows("pricing", "SELECT FROM coupon_uses WHERE order_id = $1 AND state = 'held'", order_id),
                *await self.rows("pricing", "SELECT FROM quotes WHERE order_id = $1 AND state = 'held'", order_id),
                *await self.rows("customer", "SELECT FROM identifications WHERE order_id = $1 AND points_held > 0",
                                 order_id),
            ]  # fmt: skip
            payment = (await self.look(order_id))["payment"] or {"captured": "0", "refunded": "0"}
            return not held and payment["captured"] == payment["refunded"] and await self.kept_money(order_id) == 0

        await until(f"order {order_id} holds nothing", nothing_kept)

    # The carrier

    async def carrier(self, method: str, path: str, **request: Any) -> httpx2.Response:
        key = self.platform.stack.secrets["carrier_api_key"]
        return await self.ask("carrier", method, path, headers={"Authorization": f"Bearer {key}"}, **request)

    @asynccontextmanager
    async def carrier_that(self, **behaviour: float):
        """The carrier behaves so inside the block; outside, parcels stay where they are until they are moved."""
        await self.carrier("PUT", "/sandbox/behaviour", json=behaviour)
        try:
            yield
        finally:
            await self.carrier("PUT", "/sandbox/behaviour", json={})

    async def at_carrier(self, order_id: str) -> list[dict[str, Any]]:
        """The carrier's parcels of an order that it was not asked to forget, the first one first."""
        log: list[dict[str, Any]] = await self.platform.provider("carrier", "/v1/parcels")
        own = [one for one in log if one["reference"].startswith(f"{order_id}/") and one["status"] != "cancelled"]
        return sorted(own, key=lambda one: one["reference"])

    async def booked(self, order_id: str, parcels: int = 1) -> Any:
        """The order once all its parcels are booked."""
        await self.parcels(order_id, *["booked"] * parcels)
        return await self.look(order_id)

    async def parcels(self, order_id: str, *states: str, seconds: float = 15) -> Any:
        """The order once its parcels are in these states, as ordered by number; dropped ones do not count."""

        async def there() -> Any:
            order = await self.look(order_id)
            now = [one["state"] for one in order["parcels"] if one["state"] != "dropped"]
            return order if now == list(states) else None

        return await until(f"parcels of {order_id} are {states}", there, seconds)

    async def move(self, order_id: str, status: str, number: int = 1) -> None:
        """Something happens to the order's parcel now."""
        parcel = next(one for one in await self.at_carrier(order_id) if one["reference"].split("/")[1] == str(number))
        answer = await self.carrier("POST", f"/sandbox/parcels/{parcel['id']}/status", json={"status": status})
        assert answer.is_success, answer.text

    async def ended(self, order_id: str, state: str, seconds: float = 20) -> Any:
        """The order once it is in this state."""

        async def there() -> Any:
            order = await self.look(order_id)
            return order if order["state"] == state else None

        return await until(f"order {order_id} is {state}", there, seconds)

    async def not_pending(self, order_id: str) -> None:
        """Until the carrier has answered what a cancellation waits for."""

        async def decided() -> bool:
            return not (await self.look(order_id))["cancellation_pending"]

        await until(f"the cancellation of {order_id} is decided", decided)

    async def books(self, order_id: str) -> dict[str, Decimal]:
        """The balances of the order's accounts."""
        params = {"order_id": order_id, "limit": 500}
        found: dict[str, Decimal] = {}
        for one in (await self.platform.ask("order", "GET", "/ledger/journal", params=params)).json()["items"]:
            amount = Decimal(one["debit"]) - Decimal(one["credit"])
            found[one["account"]] = found.get(one["account"], Decimal(0)) + amount
        return {account: amount for account, amount in found.items() if amount}

    # The provider

    async def provider(self, method: str, path: str, **request: Any) -> httpx2.Response:
        key = self.platform.stack.secrets["payments_api_key"]
        return await self.ask("payments", method, path, headers={"Authorization": f"Bearer {key}"}, **request)

    @asynccontextmanager
    async def provider_that(self, **behaviour: float):
        """The provider behaves so inside the block."""
        await self.provider("PUT", "/sandbox/behaviour", json=behaviour)
        try:
            yield
        finally:
            await self.provider("PUT", "/sandbox/behaviour", json={})

    async def all_notices_delivered(self, of: str = "payments") -> None:
        async def none_waits() -> bool:
            return not (await self.ask(of, "GET", "/health")).json()["webhooks_waiting"]

        await until(f"all notices of {of} are delivered", none_waits)

    # All of it

    async def holds_all_invariants(self, seconds: float = 30) -> None:
        """Once the last events and refunds have gone their way."""
        findings = await invariants.at_rest(
            self.platform, seconds=seconds, settled_seconds=1, acknowledged=self.acknowledged
        )
        broken = [f"{one.id}: {detail}" for one in findings for detail in one.broken]
        assert not broken, "\n".join(broken)

    async def start(self, services: Iterable[str], **environment: Mapping[str, str]) -> None:
        """Start services, or start them anew where their environment differs."""
        merged = {
            name: {**ENVIRONMENT.get(name, {}), **environment.get(name, {})} for name in (*services, *ENVIRONMENT)
        }
        await asyncio.to_thread(self.platform.stack.up, list(services), env=merged)


def steps(order: Any) -> list[str]:
    """What happened to the order until it was confirmed or ended: neither parcels nor care."""
    return [name for name in journey(order) if name not in AFTERWARDS and not name.startswith(("Parcel", "Care"))]


def journey(order: Any) -> list[str]:
    return [step["type"] for step in order["timeline"]]


def detail(order: Any, event: str) -> dict[str, Any]:
    """What the order's timeline says of its one event of this type."""
    (step,) = [step for step in order["timeline"] if step["type"] == event]
    return step["detail"]
