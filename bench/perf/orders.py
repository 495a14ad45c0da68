"""The orders of the benchmarks: three lines out of a thousand SKUs, by known customers. Same seed, same orders."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from bench.perf.http import Request, post

SKUS = tuple(f"sku-{number:04}" for number in range(1000))
PRICE = "4.90"
LINES = 3
HOUSE = {"code": "leeds", "name": "Leeds", "country": "GB", "priority": 1}
ROWS = 500  # of one NDJSON request
CHANNEL = "market"
PREPAID, CARD = {"method": "prepaid"}, {"method": "card", "token": "tok_ok"}


@dataclass(frozen=True)
class Load:
    """Orders at a steady rate: ``rate`` a second for ``seconds``; or, without a rate, ``number`` of them at once.

    ``name`` begins their references. With ``rows`` they go in NDJSON requests of so many.
    """

    name: str
    seed: int
    customers: Sequence[str] = ()  # without, each order has a buyer of its own
    rate: float = 0.0
    seconds: float = 0.0
    number: int = 0
    rows: int = 0
    card: bool = False
    sku: str | None = None  # everybody wants one of this; else three of all
    connections: int = 128
    patience: float = 120.0  # seconds for the last answers

    @property
    def orders(self) -> int:
        return self.number or max(1, round(self.rate * self.seconds))

    def due(self, number: int) -> float:
        """When the order (of NDJSON, its request) is to be sent, in seconds from the start."""
        return (number - number % (self.rows or 1)) / self.rate if self.rate else 0.0

    def reference(self, number: int) -> str:
        return f"{self.name}-{number}"


def build(load: Load, host: str, port: int, token: str) -> list[Request]:
    """All requests of a load, with their times."""
    dice = random.Random(f"{load.seed} {load.name}")
    bodies = [orjson.dumps(order(load, number, dice)) for number in range(load.orders)]
    if not load.rows:
        return [Request(load.due(n), post("/orders", host, port, token, body)) for n, body in enumerate(bodies)]
    return [
        Request(
            load.due(first),
            post("/orders/bulk", host, port, token, b"\n".join(bodies[first : first + load.rows]),
                 "application/x-ndjson"),
        )
        for first in range(0, load.orders, load.rows)
    ]  # fmt: skip


def order(load: Load, number: int, dice: random.Random) -> dict[str, Any]:
    skus = [load.sku] if load.sku else dice.sample(SKUS, LINES)
    who = (
        {"customer_id": dice.choice(load.customers)}
        if load.customers
        else {"buyer": {"email": f"buyer{number}.{load.name}@example.org"}}
    )
    return {
        "channel": CHANNEL,
        "external_reference": load.reference(number),
        "currency": "GBP",
        **who,
        "recipient": {"name": "Ann", "street": "1 High Street", "city": "Leeds", "postal_code": "LS1 4AP",
                      "country": "GB"},
        "lines": [{"sku": sku, "quantity": 1, "unit_price": PRICE} for sku in skus],
        "payment": CARD if load.card else PREPAID,
        "fulfilment": "channel",
    }  # fmt: skip
