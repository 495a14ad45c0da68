"""Every route of every service, as the services themselves list them, asked without a token."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx2
import pytest

from bench.platform import SERVICES
from shared.app import build_app
from shared.contracts.services import all_parts
from shared.health import Health
from tests.flows.market import Market

OPEN = {"/health/live", "/health/ready", "/metrics"}
SIGNED = {"/webhooks/payments", "/webhooks/carrier"}  # by who sends them, with a secret of their own


def routes(service: str, router: Any) -> Iterator[tuple[str, str, str]]:
    """Also those of routers within routers."""
    for route in router.routes:
        if (inner := getattr(route, "original_router", None)) is not None:
            yield from routes(service, inner)
        else:
            for method in sorted(route.methods):
                yield service, method, route.path


@pytest.fixture(scope="module")
def everything() -> list[tuple[str, str, str]]:
    with ThreadPoolExecutor(1) as pool:  # all_parts() has an event loop of its own
        parts = pool.submit(all_parts).result()
    return [one for name in SERVICES for one in routes(name, build_app(name, parts[name].routes, Health()))]


async def test_without_a_token_nothing_but_health_and_metrics_answers(
    market: Market, everything: list[tuple[str, str, str]]
):
    assert len(everything) > 45
    stack = market.platform.stack
    async with httpx2.AsyncClient() as client:
        for service, method, path in everything:
            place = filled(path)
            answer = await client.request(method, stack.url(service) + place)
            what = f"{method} {service}{path}: {answer.status_code}"
            if path in OPEN:
                assert answer.status_code == 200, what
            else:
                assert answer.status_code == 401, what
                assert answer.json()["title"] == "Unauthorized"
                assert (path in SIGNED) != ("www-authenticate" in answer.headers), what


async def test_what_is_open_names_no_order_and_no_customer(market: Market):
    lamp, _ = await market.lamps_and_cups()
    order = await market.buy((lamp, 1))
    async with httpx2.AsyncClient() as client:
        for service in SERVICES:
            metrics = (await client.get(f"{market.platform.stack.url(service)}/metrics")).text
            assert "isthmus_" in metrics
            for secret in (order["order_id"], order["customer_id"], lamp):
                assert secret not in metrics


async def test_every_scope_opens_its_own_doors_only(market: Market, everything: list[tuple[str, str, str]]):
    """The support's token reads orders and customers: everything else is forbidden to it."""
    stack, token = market.platform.stack, market.platform.stack.token("support")
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as client:
        for service, method, path in everything:
            if path in OPEN | SIGNED or (service in ("order", "customer") and method == "GET"):
                continue
            place = filled(path)
            answer = await client.request(method, stack.url(service) + place)
            assert answer.status_code == 403, f"{method} {service}{path}: {answer.status_code} {answer.text}"


def filled(path: str) -> str:
    """The path with something in the place of each parameter."""
    return re.sub(r"\{(\w+)\}", lambda name: str(UUID(int=7)) if name[1].endswith("_id") else "seven", path)
