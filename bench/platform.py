"""The running platform, as a client of its public HTTP APIs sees it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import orjson

from deploy.local.stack import DEFAULT, Stack

SERVICES = ("order", "inventory", "customer", "pricing", "notify")
TOKEN_SECONDS = 1800.0
LONGEST_PAUSE = 10.0  # seconds, whatever Retry-After says: these clients are few, and people wait for them
_ANSWERS = frozenset(range(200, 600)) - {429, 503}


class PlatformError(Exception):
    """An answer that was not expected; the message holds it."""


class Platform:
    """Clients of all services with one token. Requests that meet a restart are sent again: they are idempotent."""

    def __init__(self, stack: Stack, client: httpx2.AsyncClient):
        self.stack = stack
        self._client = client
        self._urls = {name: stack.url(name) for name in (*SERVICES, "payments", "carrier", "mail")}
        self._token, self._token_at = "", -TOKEN_SECONDS

    @staticmethod
    @asynccontextmanager
    async def connect(directory: Path = DEFAULT) -> AsyncGenerator[Platform, None]:
        limits = httpx2.Limits(max_connections=400, max_keepalive_connections=100)
        async with httpx2.AsyncClient(timeout=60, limits=limits) as client:
            yield Platform(Stack(directory), client)

    def headers(self) -> dict[str, str]:
        if time.monotonic() - self._token_at > TOKEN_SECONDS:
            self._token, self._token_at = self.stack.token("demo"), time.monotonic()
        return {"Authorization": f"Bearer {self._token}"}

    async def ask(
        self, service: str, method: str, path: str, *, expect: Iterable[int] = (200, 201), patience: float = 60,
        key: str | None = None, headers: Mapping[str, str] | None = None, **request: Any,
    ) -> httpx2.Response:  # fmt: skip
        """One request; sent again for ``patience`` seconds while the service is away (no connection, 429, 503)."""
        until = time.monotonic() + patience
        sent = {**self.headers(), **(headers or {}), **({"Idempotency-Key": key} if key else {})}
        while True:
            pause = 0.3
            try:
                answer = await self._client.request(method, self._urls[service] + path, headers=sent, **request)
            except httpx2.TransportError as error:
                if time.monotonic() > until:
                    raise PlatformError(f"{method} {service}{path}: {error!r}; is the stack up? make status") from error
            else:
                if answer.status_code in expect:
                    return answer
                if answer.status_code not in (429, 503) or time.monotonic() > until:
                    raise PlatformError(f"{method} {service}{path}: {answer.status_code} {answer.text[:500]}")
                pause = pause_of(answer)
            await asyncio.sleep(pause)

    async def behave(self, name: str, **behaviour: Any) -> None:
        """Tell the payment provider or the carrier of the sandbox how to behave."""
        key = {"Authorization": f"Bearer {self.stack.secrets[f'{name}_api_key']}"}
        await self.ask(name, "PUT", "/sandbox/behaviour", json=behaviour, headers=key)

    async def provider(self, name: str, path: str) -> list[dict[str, Any]]:
        """A log of ``payments``, the payment provider, or of the ``carrier``, whole."""
        key = self.stack.secrets[f"{name}_api_key"]
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            params = {"limit": 500, **({"cursor": cursor} if cursor else {})}
            headers = {"Authorization": f"Bearer {key}"}
            page = (await self.ask(name, "GET", path, headers=headers, params=params)).json()
            found += page["data"]
            cursor = page["next_cursor"]
            if not cursor or not page["data"]:
                return found

    async def post(self, path: str, **request: Any) -> httpx2.Response:
        """One try at the order service, whatever comes of it; raises httpx2.TransportError without an answer."""
        return await self._client.request("POST", self._urls["order"] + path, headers=self.headers(), **request)

    async def place(self, order: Mapping[str, Any], wait: int = 0) -> httpx2.Response:
        """Place one order; any answer but "not now" is an answer. ``wait`` seconds for the outcome in it."""
        prefer = {"Prefer": f"wait={wait}"} if wait else {}
        return await self.ask("order", "POST", "/orders", json=order, headers=prefer, expect=_ANSWERS)

    async def place_bulk(self, orders: Sequence[Mapping[str, Any]], patience: float = 120) -> list[dict[str, Any]]:
        """Place many orders; a report for each, in order. Those that there was no room for are sent again."""
        until = time.monotonic() + patience
        reports: dict[int, dict[str, Any]] = {}
        left = list(range(len(orders)))
        while left:
            body = b"\n".join(orjson.dumps(orders[number]) for number in left)
            answer = await self.ask("order", "POST", "/orders/bulk", content=body)
            for number, line in zip(left, answer.content.splitlines(), strict=True):
                reports[number] = orjson.loads(line) | {"row": number + 1}
            left = [number for number in left if reports[number]["status"] == 503]
            if not left or time.monotonic() > until:
                break
            await asyncio.sleep(pause_of(answer))
        return [reports[number] for number in range(len(orders))]

    async def counts(self) -> dict[str, int]:
        """Orders by state."""
        return (await self.ask("order", "GET", "/order-counts")).json()

    async def open_orders(self) -> int:
        counts = await self.counts()
        return counts.get("placed", 0) + counts.get("paying", 0)

    async def catalogue(
        self, items: Sequence[Mapping[str, Any]], *, warehouses: Sequence[Mapping[str, Any]],
        receipts: Sequence[Mapping[str, Any]], key: str,
    ) -> None:  # fmt: skip
        """Register warehouses and products, and receive goods, once per ``key``, in pieces that a request may hold."""
        for warehouse in warehouses:
            body = {name: value for name, value in warehouse.items() if name != "code"}
            await self.ask("inventory", "PUT", f"/warehouses/{warehouse['code']}", json=body)
        for piece in pieces(items, 1000):
            await self.ask("inventory", "POST", "/items", json={"items": list(piece)})
        for number, piece in enumerate(pieces(receipts, 1000)):
            await self.ask("inventory", "POST", "/stock/receipts", json={"lines": list(piece)}, key=f"{key}/{number}")

    async def prices(self, code: str, currency: str, prices: Mapping[str, str], key: str) -> None:
        """Set the prices of a list, once per ``key``."""
        body = {"name": code, "currency": currency, "priority": 10}
        await self.ask("pricing", "PUT", f"/price-lists/{code}", json=body)
        for number, piece in enumerate(pieces(list(prices.items()), 1000)):
            lines = [{"sku": sku, "unit_price": price} for sku, price in piece]
            body = {"price_list": code, "lines": lines, "valid_from": "2020-01-01T00:00:00Z"}
            await self.ask("pricing", "POST", "/prices", json=body, key=f"{key}/{number}")


@asynccontextmanager
async def database(stack: Stack, service: str) -> AsyncGenerator[asyncpg.Connection[asyncpg.Record]]:
    """A connection to the service's own database."""
    connection = await asyncpg.connect(stack.database_url(service), timeout=10)
    try:
        yield connection
    finally:
        await connection.close()


def pause_of(answer: httpx2.Response) -> float:
    """Seconds until a request that was not taken is sent again: Retry-After, and up to a quarter more."""
    asked = answer.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_PAUSE) * random.uniform(1, 1.25) if asked.isdigit() else 0.3


def pieces(whole: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (whole[start : start + size] for start in range(0, len(whole), size))
