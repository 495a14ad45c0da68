"""A stack on which faults are run: load and a fault at the same time, healing, a healthy tail, and the invariants."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import invariants
from bench.clock import Say
from bench.faults import remains, watch
from bench.faults.disks import Disk, remove_disks, small_disk
from bench.faults.forks import LAUNCHER
from bench.faults.load import Load
from bench.faults.proxy import Proxies
from bench.faults.results import Row
from bench.faults.scene import Env, Fault, Scene
from bench.faults.wiring import links
from bench.platform import SERVICES, Platform, PlatformError
from deploy.local.errors import StackError
from deploy.local.stack import Stack

DIRECTORY = Path(".local/faults")
TAIL, TAIL_RATE, TAIL_SECONDS = 100, 20.0, 60.0
DISK_MB = {"postgres": 700, "kafka": 300}
PAYMENTS = {"delay_ms": 5, "slow_seconds": 1, "webhook_duplicate_rate": 0, "webhook_reorder_rate": 0}
CARRIER = {"collect_seconds": 0.2, "transit_seconds": 0.4, "promise_seconds": 60, "webhook_duplicate_rate": 0,
           "webhook_reorder_rate": 0}  # fmt: skip


@dataclass
class Stage:
    """One stack, for one fault or for several after each other; what was told and injected before still counts."""

    stack: Stack
    platform: Platform
    say: Say
    env: Env
    proxies: Proxies | None
    disk: Disk | None
    acknowledged: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    expected: dict[str, Any] = field(default_factory=dict[str, Any])

    @staticmethod
    @contextlib.asynccontextmanager
    async def open(directory: Path, say: Say, *, proxied: bool, disk: str | None = None) -> AsyncGenerator[Stage]:
        """A clean stack, without a trace afterwards. Raises StackError, NoDisksError or ProxyError."""
        stack = Stack(directory, say=lambda _: None)
        await asyncio.to_thread(_clean, stack)
        say("starting a stack")
        try:
            async with contextlib.AsyncExitStack() as opened:
                small = opened.enter_context(small_disk(stack, disk, DISK_MB[disk])) if disk else None
                env, proxies = {"notify": {"ISTHMUS_MAIL_TIMEOUT": "2"}}, None
                if proxied:
                    wired = await asyncio.to_thread(links, stack)
                    proxies = await opened.enter_async_context(Proxies(wired.ports))
                    env = _both(env, wired.env)
                await asyncio.to_thread(stack.up, (), env=env)
                async with Platform.connect(directory) as platform:
                    yield Stage(stack, platform, say, env, proxies, small)
                await asyncio.to_thread(stack.down)
        finally:
            await asyncio.to_thread(_clean, stack)

    async def run(self, fault: Fault, seed: int, *, small: bool, version: str) -> Row:
        """Run ``fault`` once; what goes wrong is in the row."""
        row = Row(fault.name, seed, "small" if small else "full", version)
        started = time.monotonic()
        orders, rate = (fault.small, fault.small_rate) if small else (fault.orders, fault.rate)
        load = Load(self.platform, seed, fault.kind)
        scene = Scene(
            self.stack, self.platform, load, random.Random(seed), small, self.say, self.proxies, self.disk,
            row.facts, self.expected, told=self.env, forked=fault.forked, unharm=self._start,
        )  # fmt: skip
        try:
            await self._start(fault)
            await self.platform.behave("payments", **PAYMENTS)
            await self.platform.behave("carrier", **CARRIER)
            await load.prepare(orders + TAIL)
            await _under_fault(fault, scene, row, orders, rate)
            await _tail(scene, row, small)
            self.acknowledged += load.told.acknowledged
            await self._judge(fault, scene, row)
        except (PlatformError, StackError, TimeoutError, ExceptionGroup) as error:
            row.fail("stuck", f"{type(error).__name__}: {error}")
        row.orders = len({order_id for _, _, order_id in load.told.acknowledged})
        row.facts["answers"] = {str(status): number for status, number in load.told.answers.items()}
        row.facts |= {"sent again": load.told.again, "slowest answer s": round(load.told.slowest, 1)}
        row.seconds = round(time.monotonic() - started, 1)
        if not row.held:
            self.say(f"logs and tables are kept in {await remains.keep(self.stack, f'{fault.name}-{seed}')}")
        return row

    async def _start(self, fault: Fault | None = None) -> None:
        """Start the services, or start again those whose environment was another one."""
        env, launcher = self.env, None
        if fault is not None:
            more = fault.env_of(self.stack.directory) if fault.env_of else fault.env
            env, launcher = _both(self.env, more), LAUNCHER if fault.forked else None
        await asyncio.to_thread(self.stack.up, SERVICES, env=env, launcher=launcher)

    async def _judge(self, fault: Fault, scene: Scene, row: Row) -> None:
        """All invariants, once nothing moves any more; then mails, and what the fault asks for."""
        told = scene.load.told
        scene.say("invariants")
        injected = self.expected["poison"].ids if "poison" in self.expected else ()
        findings = await invariants.at_rest(self.platform, acknowledged=self.acknowledged, injected=injected)
        row.count(findings, "at rest")
        row.fail("doubled", [f"{reference} was told of as two orders" for reference in told.different])
        row.fail("lost", [f"refused for good: {one}" for one in told.refused])
        if not scene.small:
            scene.say("mails")
            await _mailed(scene)
        for check in fault.afterwards:
            row.fail("other", list(await check(scene)))
        row.facts["states"] = await self.platform.counts()


def _clean(stack: Stack) -> None:
    remove_disks(stack)
    stack.clean()


def _both(first: Env, second: Env) -> Env:
    return {name: {**first.get(name, {}), **second.get(name, {})} for name in first.keys() | second.keys()}


async def _under_fault(fault: Fault, scene: Scene, row: Row, orders: int, rate: float) -> None:
    scene.say(f"{orders:,} orders at {rate:g}/s, and {fault.does}")
    watching = watch.Watch(scene.platform)
    sampling = asyncio.create_task(watching.run())
    scene.loading = asyncio.create_task(scene.load.run(orders, rate))
    telling = asyncio.create_task(_tell(scene, orders))
    try:
        await fault.act(scene)
        healed = time.monotonic()
        await scene.loading
        await scene.all_ready()
        scene.say("healed; draining")
        await _drained(scene, fault.drain)
        row.drain_seconds = round(time.monotonic() - healed, 1)
    finally:
        scene.loading.cancel()
        telling.cancel()
        watching.stop()
        await asyncio.gather(sampling, telling, scene.loading, return_exceptions=True)
        row.samples = watching.samples
        row.count(watching.broken, "during the fault")


async def _tell(scene: Scene, orders: int) -> None:
    """Long work shows progress."""
    while True:
        await asyncio.sleep(10)
        told = len(scene.load.told.acknowledged)
        scene.say(f"  {scene.load.sent:,} of {orders:,} sent, {told:,} told of, {scene.load.told.again:,} sent again")


async def _drained(scene: Scene, seconds: float) -> None:
    """Wait until nothing is under way; raises TimeoutError with what still is."""
    until = time.monotonic() + seconds
    waiting: dict[str, Any] = {}
    while time.monotonic() < until:
        try:
            waiting = await watch.under_way(scene.platform)
        except watch.AWAY as error:
            waiting = {"not to be asked": repr(error)}
        if not any(waiting.values()):
            return
        await asyncio.sleep(0.5)
    raise TimeoutError(f"after {seconds:.0f} s there is still under way: {waiting}")


async def _mailed(scene: Scene) -> None:
    """Wait until every mail is sent, or known not to be sent; raises TimeoutError."""
    for second in range(200):
        if not await watch.mails(scene.platform, hurry=second % 10 == 0):
            return
        await asyncio.sleep(1)
    raise TimeoutError("after 200 s there are mails of which nobody knows what became")


async def _tail(scene: Scene, row: Row, small: bool) -> None:
    """After healing, customers notice nothing: every order is taken at the first try, and reaches its end in time."""
    load, again = scene.load, scene.load.told.again
    await load.run(TAIL // 5 if small else TAIL, TAIL_RATE)
    if load.told.again > again:
        row.fail("other", f"the healthy tail had to send {load.told.again - again} requests again")
    await _drained(scene, TAIL_SECONDS)
