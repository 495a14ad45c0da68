"""A stack for a benchmark: five services, goods and customers; loads are sent to it, and what comes of them is seen."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import invariants, machine
from bench.clock import Say
from bench.perf import sender, watcher
from bench.perf.child import Child, child
from bench.perf.lag import Lag, sampled
from bench.perf.orders import CHANNEL, HOUSE, PRICE, ROWS, SKUS, Load
from bench.perf.sender import Sent
from bench.platform import SERVICES, Platform, PlatformError
from deploy.local.stack import Stack
from shared.topics import ORDERS

DIRECTORY = Path(".local/bench")
ENV: Mapping[str, Mapping[str, str]] = {
    # The gate of the intake would refuse what is beyond the present pace: here it is the platform that is measured.
    "order": {"ISTHMUS_MAX_OPEN_ORDERS": "10000000", "ISTHMUS_MAX_IN_FLIGHT": "100000"},
    "notify": {"ISTHMUS_MAIL": "false"},
}
ENDS = frozenset({"OrderConfirmed", "OrderRejected", "OrderCancelled", "OrderExpired"})
STOCK = 100_000_000  # units of each SKU
SANDBOX = {"delay_ms": 5, "webhook_duplicate_rate": 0, "webhook_reorder_rate": 0}
PIECE = 5_000  # orders per load while filling
HEAD_START = 0.3  # seconds from the word to start until the start


@dataclass
class Trial:
    """What came of a load. Times are of the monotonic clock; lists have an entry per order of the load."""

    load: Load
    start: float
    sent: Sent
    ended: dict[str, tuple[str, float]]  # by order id: how, and when
    cpu: dict[str, float] = field(default_factory=dict[str, float])  # seconds by process, in the measured window
    memory: dict[str, int] = field(default_factory=dict[str, int])  # PSS in bytes by process, at the window's end
    lag: list[Lag] = field(default_factory=list[Lag])
    window: tuple[float, float] = (0.0, 0.0)
    drained: float = 0.0  # seconds from the last order's time until every order had ended

    def due(self) -> list[float]:
        return [self.start + self.load.due(number) for number in range(self.load.orders)]

    def confirmed(self) -> list[float]:
        """When, in ascending order."""
        return sorted(at for how, at in self.ended.values() if how == "OrderConfirmed")

    def waits(self) -> list[float]:
        """Seconds from the time at which each order of the window was due until it was confirmed."""
        begin, end = self.window
        return [
            self.ended[order_id][1] - due
            for order_id, due in zip(self.sent.order_ids, self.due(), strict=True)
            if order_id in self.ended and begin <= due < end
        ]


@dataclass
class Stage:
    """``prepared`` once, then any number of loads, one after the other."""

    stack: Stack
    platform: Platform
    seed: int
    say: Say
    quick: bool = False
    million: bool = False  # of growth: fill up to a million orders
    customers: list[str] = field(default_factory=list[str])
    acknowledged: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    untold: list[str] = field(default_factory=list[str])  # promises to the client that did not hold
    _sender: Child | None = None
    _watcher: Child | None = None
    _watched: float = 0.0
    _loads: int = 0

    @staticmethod
    @contextlib.asynccontextmanager
    async def open(
        seed: int, say: Say, *, quick: bool = False, million: bool = False
    ) -> AsyncGenerator[Stage]:  # fmt: skip
        """A clean stack, without a trace afterwards. Raises StackError or PlatformError."""
        stack = Stack(DIRECTORY, say=lambda _: None)
        await asyncio.to_thread(stack.clean)
        say("starting a stack")
        try:
            await asyncio.to_thread(stack.up, SERVICES, env=ENV)
            async with contextlib.AsyncExitStack() as opened:
                platform = await opened.enter_async_context(Platform.connect(DIRECTORY))
                stage = Stage(stack, platform, seed, say, quick, million)
                stage._sender = await opened.enter_async_context(child(sender.main, stack.url("order")))
                wanted = {ORDERS.name: ENDS}
                stage._watcher = await opened.enter_async_context(
                    child(watcher.main, stack.bootstrap_servers, wanted)
                )  # fmt: skip
                await stage._watcher.answer()
                yield stage
        finally:
            await asyncio.to_thread(stack.clean)

    async def prepare(self, customers: int = 1000) -> None:
        """Goods, prices, customers, and a first order that is confirmed."""
        if self.quick:
            customers = min(customers, 50)
        self.say(f"goods and {customers} customers")
        platform = self.platform
        await platform.behave("payments", **SANDBOX)
        items = [{"sku": sku, "name": sku, "category": "things", "weight": 500} for sku in SKUS]
        receipts = [
            {"sku": sku, "warehouse": HOUSE["code"], "quantity": STOCK, "unit_cost": "2.00", "currency": "GBP"}
            for sku in SKUS
        ]
        await platform.catalogue(items, warehouses=[HOUSE], receipts=receipts, key="goods")
        await platform.prices("main", "GBP", dict.fromkeys(SKUS, PRICE), key="main")
        for number in range(customers):
            body = {"email": f"customer{number}@example.org", "name": "Customer"}
            told = await platform.ask("customer", "POST", "/customers", json=body)
            self.customers.append(told.json()["customer_id"])
        refusal = ""
        for _ in range(100):  # until the order service has heard of the goods
            trial = await self.run(Load("first", self.seed, self.customers, number=1))
            if trial.sent.order_ids[0]:
                return
            refusal = trial.sent.first_refusal
            await asyncio.sleep(0.2)
        raise PlatformError(f"no order is accepted: {refusal}")

    def load(self, **what: Any) -> Load:
        """A load by the known customers, with a name of its own."""
        self._loads += 1
        return replace(Load(f"load{self._loads}", self.seed, self.customers), **what)

    async def run(self, load: Load, *, warm: float = 0.0, drain: float = 120.0) -> Trial:
        """Send a load and wait until all of it has ended; what is measured is after the first ``warm`` seconds."""
        assert self._sender is not None
        await self._sender.ask((load, self.platform.headers()["Authorization"].split()[1]))
        start = time.monotonic() + HEAD_START
        self._sender.tell(start)
        trial = Trial(load, start, Sent([], []), {}, window=(start + warm, start + max(load.seconds, warm)))
        await self._seen()
        watched = self._watched
        async with sampled(self.stack) as samples:
            if load.seconds:
                await self._measure(trial)
            trial.sent = await self._sender.answer()
            wanted = {order_id for order_id in trial.sent.order_ids if order_id}
            until = time.monotonic() + drain
            while True:
                trial.ended.update(await self._seen())
                if wanted <= trial.ended.keys() or time.monotonic() > until:
                    break
                await asyncio.sleep(0.2)
        trial.lag = samples
        trial.ended = {order_id: end for order_id, end in trial.ended.items() if order_id in wanted}
        last = max((at for _, at in trial.ended.values()), default=start)
        trial.drained = max(0.0, last - start - load.due(load.orders - 1))
        trial.cpu["(watcher)"] = self._watched - watched
        self._told(trial, wanted)
        return trial

    async def fill(self, orders: int, **what: Any) -> None:
        """Place so many orders, as fast as they are taken, and wait until all of them have ended."""
        while orders > 0:
            number = min(PIECE, orders)
            await self.run(self.load(number=number, rows=ROWS, connections=2, **what), drain=600)
            orders -= number

    async def findings(self) -> list[invariants.Finding]:
        """All invariants, once nothing moves any more."""
        self.say("invariants")
        return await invariants.at_rest(self.platform, acknowledged=self.acknowledged)

    async def _measure(self, trial: Trial) -> None:
        """CPU over the window, and memory at its end."""
        begin, end = trial.window
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        before = await asyncio.to_thread(machine.cpu, self.stack)
        await asyncio.sleep(max(0.0, end - time.monotonic()))
        trial.cpu = machine.used(before, await asyncio.to_thread(machine.cpu, self.stack))
        trial.memory = await asyncio.to_thread(machine.memory, self.stack)

    async def _seen(self) -> dict[str, tuple[str, float]]:
        assert self._watcher is not None
        seen, self._watched = await self._watcher.ask("what have you seen?")
        found: dict[str, tuple[str, float]] = {}
        for key, how, at in seen:
            found.setdefault(key, (how, at))
        return found

    def _told(self, trial: Trial, wanted: set[str]) -> None:
        references = map(trial.load.reference, range(trial.load.orders))
        pairs: Sequence[tuple[str, str | None]] = list(zip(references, trial.sent.order_ids, strict=True))
        self.acknowledged += [(CHANNEL, reference, order_id) for reference, order_id in pairs if order_id]
        if missing := wanted - trial.ended.keys():
            self.untold.append(f"{trial.load.name}: {len(missing)} orders have no end, as {min(missing)}")
