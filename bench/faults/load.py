"""The base load of the fault matrix: customers of a web shop who order at a steady rate, and try again until told.

Orders of 1-5 SKUs out of 40, a fifth of them with one SKU that is scarce. Half come in NDJSON requests, as from a
marketplace's connector, and are paid there. The others come one by one and are paid by card: 10 % of these are
declined, 5 % are sent twice, 3 % are cancelled soon after. Most are handed over when they are confirmed (a shop that
sells downloads and tickets); some go by the carrier, with mails. The same seed gives the same orders.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson

from bench.platform import Platform, PlatformError, pause_of

WAREHOUSES = [
    {"code": "leeds", "name": "Leeds", "country": "GB", "priority": 1},
    {"code": "lyon", "name": "Lyon", "country": "FR", "priority": 2},
]
SKUS = tuple(f"thing-{number:02}" for number in range(40))
HOT = "hot-thing"
MEMBERS = 20
COUPON = "faults"


@dataclass(frozen=True)
class Kind:
    """What an order is like, beside its lines; shares are of all orders, those of tokens of the cards."""

    declined: float = 0.1
    twice: float = 0.05
    cancelled: float = 0.03
    carried: float = 0.05  # by the carrier, with parcels and mails
    bulk: float = 0.5  # in NDJSON requests, and paid
    tokens: Sequence[tuple[str, float]] = ()  # further tokens of the sandbox, with their shares


@dataclass
class Told:
    """What the clients were told."""

    acknowledged: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    answers: Counter[int] = field(default_factory=Counter[int])
    again: int = 0  # requests sent again, for want of an answer or of a good one
    different: list[str] = field(default_factory=list[str])  # references told of as two orders
    refused: list[str] = field(default_factory=list[str])  # for good
    slowest: float = 0.0  # seconds until told
    curt: int = 0  # requests told to come again, and not when


class Load:
    """``await prepare()`` once, then ``await run(orders, rate)``."""

    def __init__(self, platform: Platform, seed: int, kind: Kind = Kind()):
        self.platform, self.seed, self.kind, self.told = platform, seed, kind, Told()
        self.run_name = f"f{seed}-{int(time.time())}"
        self.sent = 0
        self._dice = random.Random(seed)
        self._members: list[str] = []
        self._stopping = False
        self._known: dict[str, str] = {}

    async def prepare(self, orders: int) -> None:
        """Products, prices, a coupon, stock for most of ``orders``, and members with points."""
        platform = self.platform
        items = [{"sku": sku, "name": sku, "category": "things", "weight": 500} for sku in (*SKUS, HOT)]
        receipts = [
            {"sku": sku, "warehouse": house["code"], "quantity": units, "unit_cost": "2.00", "currency": "GBP"}
            for sku, units in (*((sku, orders) for sku in SKUS), (HOT, max(1, orders // 15)))
            for house in WAREHOUSES
        ]
        await platform.catalogue(items, warehouses=WAREHOUSES, receipts=receipts, key=self.run_name)
        await platform.prices("main", "GBP", dict.fromkeys((*SKUS, HOT), "4.90"), key="main")
        await platform.ask("pricing", "PUT", f"/coupons/{COUPON}", json={"percent": "10", "priority": 1})
        for number in range(MEMBERS):
            body = {"email": f"member{number}.{self.run_name}@example.org", "name": "Member"}
            id_ = (await platform.ask("customer", "POST", "/customers", json=body)).json()["customer_id"]
            points = {"points": 100_000, "reason": "welcome"}
            await platform.ask("customer", "POST", f"/customers/{id_}/points", json=points, key=f"welcome/{id_}")
            self._members.append(id_)
        warm_up, refusal = self._order(f"warm-up-{self.run_name}", sku=HOT), ""
        for _ in range(200):  # until the order service has heard of everything that it needs to accept an order
            answer = await platform.place(warm_up)
            if answer.status_code in (200, 201):
                self._heard(f"warm-up-{self.run_name}", answer.json()["order_id"])
                return
            refusal = answer.text[:300]
            await asyncio.sleep(0.2)
        raise PlatformError(f"no order is accepted: {refusal}")

    def stop(self) -> None:
        """Send no more new orders; those under way are sent until they are told of."""
        self._stopping = True

    async def run(self, orders: int, rate: float) -> None:
        """Send ``orders`` at ``rate`` a second, whatever the answers; returns when every client has been told."""
        started, first, pile = time.monotonic(), self.sent, list[dict[str, Any]]()
        async with asyncio.TaskGroup() as group:
            for number in range(orders):
                if self._stopping:
                    break
                pause = started + number / rate - time.monotonic()
                if pause > 0:
                    await asyncio.sleep(pause)
                bulk = self._dice.random() < self.kind.bulk
                order = self._order(f"{self.run_name}-{first + number:06}", paid=bulk)
                self.sent += 1
                if bulk:
                    pile.append(order)
                    if len(pile) >= max(2, rate // 10):
                        group.create_task(self._send_pile(pile))
                        pile = []
                else:
                    group.create_task(self._buy(order))
            group.create_task(self._send_pile(pile))

    # -- clients --------------------------------------------------------------------------------------------------

    async def _buy(self, order: dict[str, Any]) -> None:
        chance = self._dice.random()
        order_id = await self._place(order)
        if order_id is None:
            return
        if chance < self.kind.twice:
            await self._place(order)
        elif chance < self.kind.twice + self.kind.cancelled:
            await self.platform.ask(
                "order", "POST", f"/orders/{order_id}/cancellations", json={"reason": "changed_mind"},
                key=order_id, expect=(200, 202, 409, 500), patience=180,
            )  # fmt: skip

    async def _place(self, order: dict[str, Any]) -> str | None:
        """Send until told; None when it is refused for good."""
        started, pause = time.monotonic(), 0.2
        while True:
            try:
                answer = await self.platform.post("/orders", json=order)
            except httpx2.TransportError:
                answer = None
            if answer is not None:
                self.told.answers[answer.status_code] += 1
                if answer.status_code in (200, 201):
                    self.told.slowest = max(self.told.slowest, time.monotonic() - started)
                    return self._heard(order["external_reference"], answer.json()["order_id"])
                if answer.status_code < 500 and answer.status_code != 429:
                    self.told.refused.append(f"{order['external_reference']}: {answer.text[:200]}")
                    return None
            self.told.again += 1
            self.told.curt += answer is not None and "Retry-After" not in answer.headers
            asked = pause_of(answer) if answer is not None and "Retry-After" in answer.headers else pause
            await asyncio.sleep(asked * (0.5 + random.random()))
            pause = min(pause * 2, 3.0)

    async def _send_pile(self, pile: list[dict[str, Any]]) -> None:
        """An NDJSON request; what is not told of in its report is sent again."""
        started, pause = time.monotonic(), 0.2
        while pile:
            try:
                answer = await self.platform.post("/orders/bulk", content=b"\n".join(map(orjson.dumps, pile)))
                reports = [orjson.loads(line) for line in answer.content.splitlines()] if answer.is_success else []
            except httpx2.TransportError:
                reports = []
            left: list[dict[str, Any]] = []
            for number, order in enumerate(pile):
                report: dict[str, Any] = reports[number] if number < len(reports) else {"status": 503}
                self.told.answers[report["status"]] += 1
                if report["status"] in (200, 201):
                    self.told.slowest = max(self.told.slowest, time.monotonic() - started)
                    self._heard(order["external_reference"], report["order_id"])
                elif report["status"] < 500:
                    self.told.refused.append(f"{order['external_reference']}: {report}")
                else:
                    left.append(order)
            if left:
                self.told.again += 1
                await asyncio.sleep(pause * (0.5 + random.random()))
                pause = min(pause * 2, 3.0)
            pile = left

    def _heard(self, reference: str, order_id: str) -> str:
        before = self._known.setdefault(reference, order_id)
        if before != order_id:
            self.told.different.append(reference)
        self.told.acknowledged.append(("shop", reference, order_id))
        return order_id

    # -- orders ---------------------------------------------------------------------------------------------------

    def _order(self, reference: str, sku: str | None = None, *, paid: bool = False) -> dict[str, Any]:
        dice, kind = self._dice, self.kind
        skus = dice.sample(SKUS, dice.choices((1, 2, 3, 4, 5), (40, 30, 15, 10, 5))[0])
        if dice.random() < 0.2:
            skus[0] = HOT
        order: dict[str, Any] = {
            "channel": "shop",
            "external_reference": reference,
            "currency": "GBP",
            "recipient": {"name": "Ann", "street": "1 High Street", "city": "Leeds", "postal_code": "LS1 4AP",
                          "country": "GB"},
            "lines": [{"sku": one, "quantity": dice.choice((1, 1, 2))} for one in ([sku] if sku else skus)],
            "payment": {"method": "prepaid"} if paid else {"method": "card", "token": self._token()},
        }  # fmt: skip
        if dice.random() < kind.carried:
            order["buyer"] = {"email": f"buyer{dice.randrange(50)}@example.org"}
        else:
            order["fulfilment"] = "immediate"
        chance = dice.random()
        if chance < 0.2 and self._members:
            order["customer_id"] = dice.choice(self._members)
        if paid:
            return order
        if chance < 0.1 and self._members:
            order["points"] = 20
        elif 0.2 <= chance < 0.3:
            order["coupon"] = COUPON
        return order

    def _token(self) -> str:
        chance = self._dice.random()
        for token, share in (("tok_declined", self.kind.declined), *self.kind.tokens):
            if chance < share:
                return token
            chance -= share
        return "tok_ok"
