"""The faults of the matrix: what is done while orders flow, and how it is healed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
from collections.abc import Sequence
from typing import get_args

from bench.faults.crashes import crash, every_point_was_hit, logs
from bench.faults.load import Kind
from bench.faults.poison import Poisoner, put_aside
from bench.faults.proxy import Direction
from bench.faults.replicas import replica
from bench.faults.rereading import read_again
from bench.faults.scene import Fault, Scene
from bench.machine import pss
from bench.platform import SERVICES


async def kill_services(scene: Scene) -> None:
    while await scene.sleep(2.0):
        name = scene.dice.choice(SERVICES)
        if await scene.kill(name):
            scene.did(f"kill -9 {name}")


async def _kill(scene: Scene, name: str, times: int, every: float) -> None:
    for _ in range(1 if scene.small else times):
        if not await scene.sleep(2 if scene.small else every):
            return
        if await scene.kill(name):
            scene.did(f"kill -9 {name}")
        await asyncio.to_thread(scene.stack.wait_ready, name)


async def kill_kafka(scene: Scene) -> None:
    await _kill(scene, "kafka", times=3, every=30)


async def pause_kafka(scene: Scene) -> None:
    await scene.sleep(2)
    scene.did("SIGSTOP kafka")
    await scene.pause("kafka", 5 if scene.small else 15)


async def kill_postgres(scene: Scene) -> None:
    await _kill(scene, "postgres", times=5, every=15)


async def pause_services(scene: Scene) -> None:
    """With two replicas each: one stands still, the other may take over, and then the first goes on."""
    async with contextlib.AsyncExitStack() as opened:
        seconds = [await opened.enter_async_context(replica(scene.stack, name, env=scene.env(name))) for name in PAUSED]
        while await scene.sleep(3.0 if scene.small else 8.0):
            name = scene.dice.choice(PAUSED)
            pause = 4.0 if scene.small else scene.dice.uniform(20, 26)  # a group misses a member after 20 s
            scene.did(f"SIGSTOP {name}")
            if scene.dice.random() < 0.7:
                await scene.pause(name, pause)
            else:
                other = seconds[PAUSED.index(name)]
                other.pause()
                await asyncio.sleep(pause)
                other.resume()
        for second in seconds:
            await second.stop()


async def drop_commit_replies(scene: Scene) -> None:
    proxies = scene.proxy()
    for service in SERVICES:
        await proxies.drop_commit_replies(
            f"{service}-postgres", 0.05 if scene.small else 0.01, scene.dice.randrange(99)
        )
    await scene.sleep(600)
    stats = await proxies.stats()
    scene.facts["replies to COMMIT lost"] = sum(one.dropped for one in stats.values())
    for service in SERVICES:
        await proxies.heal(f"{service}-postgres")


async def cut_links(scene: Scene) -> None:
    """Every link for 20 s, three at a time; over three seeds each is cut in each direction."""
    proxies = scene.proxy()
    names, directions = sorted(await proxies.stats()), get_args(Direction)
    turns = [(name, directions[(number + scene.load.seed) % 3]) for number, name in enumerate(names)]
    scene.dice.shuffle(turns)
    if scene.small:
        turns = turns[:2]

    async def cut(turn: tuple[str, Direction]) -> None:
        await proxies.cut(*turn)
        await asyncio.sleep(4 if scene.small else 20)
        await proxies.heal(turn[0])
        scene.did("links cut")

    scene.facts["links"] = [f"{name} {direction}" for name, direction in turns]
    for first in range(0, len(turns), 3):
        await asyncio.gather(*(cut(turn) for turn in turns[first : first + 3]))


async def fill_disk(scene: Scene) -> None:
    assert scene.disk is not None, "the fault asks for a small disk and does not say so"
    await scene.sleep(3)
    scene.facts["MB filled"] = scene.disk.fill() // 1_048_576
    await scene.sleep(5 if scene.small else 15)
    scene.disk.free()


async def poison(scene: Scene) -> None:
    poisoner: Poisoner = scene.expected.setdefault("poison", Poisoner(scene.stack.bootstrap_servers))
    await poisoner.prepare()
    rest = 8 if scene.small else 33  # orders bring some fifteen messages each
    for number in itertools.count():
        while scene.load.sent < (number + 1) * rest:
            if not await scene.sleep(0.05):
                scene.facts["injected"] = poisoner.counts
                return
        _, _, order_id = scene.dice.choice(scene.load.told.acknowledged)
        await poisoner.inject(order_id, number)


async def dead_letters_are_those_injected(scene: Scene) -> Sequence[str]:
    wanted, found = scene.expected["poison"].expected, await put_aside(scene.stack.bootstrap_servers)
    scene.facts["dead letters"] = len(set(found))
    return [
        *(f"{place} was injected and is no dead letter" for place in sorted(wanted - set(found))),
        *(f"{place} is a dead letter and was not injected" for place in sorted(set(found) - wanted)),
    ]


async def bad_webhooks(scene: Scene) -> None:
    for name in ("payments", "carrier"):
        await scene.platform.behave(
            name, webhook_duplicate_rate=0.1, webhook_copies=3, webhook_reorder_rate=0.1,
            **({"slow_seconds": 8} if name == "payments" else {}),
        )  # fmt: skip
    await scene.sleep(600)


async def crowd(scene: Scene) -> None:
    """More orders than can be done in time; meanwhile the order process is weighed."""
    weights: list[float] = []
    while await scene.sleep(0.5):
        if (pid := scene.stack.pid("order")) and (weight := pss(pid)):  # one that is gone weighs nothing
            weights.append(weight / 1_048_576)
    third = max(1, len(weights) // 3)
    scene.facts["MiB of order"] = [round(statistics.mean(part), 1) for part in (weights[:third], weights[-third:])]


async def refused_in_time(scene: Scene) -> Sequence[str]:
    """What was too much was refused and told when to come again, and did not pile up in memory."""
    told, (first, last) = scene.load.told, scene.facts["MiB of order"]
    wrong: list[str] = []
    if not told.answers[503]:
        wrong.append("nothing was refused: this was no crowd")
    if told.curt:
        wrong.append(f"{told.curt} refusals did not say when to come again")
    if last - first > GROWTH:
        wrong.append(f"the order process grew by {last - first:.0f} MiB")
    return wrong


async def nothing(scene: Scene) -> None:
    """The orders themselves are the fault."""
    await scene.sleep(600)


GROWTH = 40.0  # MiB, from the first to the last third: what allocators and bounded caches come to while they fill
PAUSED = ("order", "inventory", "pricing")
LATE = Kind(tokens=(("tok_slow", 0.2),))
UNKNOWN = Kind(tokens=(("tok_lost", 0.02), ("tok_drop", 0.02), ("tok_timeout", 0.01)))
FAULTS = {
    fault.name: fault
    for fault in (
        Fault(
            "kill-services", "kill -9 of a random service every 2 s", kill_services, orders=20_000, small=120, rate=100,
            forked=True, fresh=True,
        ),
        Fault(
            "crash-points", "each service ends itself at the crash points of the kernel", crash, orders=100_000,
            rate=25, drain=180, kind=Kind(carried=0.3), env_of=logs, forked=True, fresh=True, in_small=False,
            afterwards=(every_point_was_hit,),
        ),
        Fault("pause-services", "a replica stands still for 20 s", pause_services, rate=30, in_small=False),
        Fault("kill-kafka", "kill -9 of Kafka, three times", kill_kafka, orders=20_000, rate=100, fresh=True),
        Fault("kill-postgres", "kill -9 of Postgres, five times", kill_postgres, orders=20_000, rate=100, fresh=True),
        Fault("pause-kafka", "Kafka stands still for 15 s", pause_kafka, in_small=False),
        Fault("commit-replies", "1 % of the replies to COMMIT are lost", drop_commit_replies, proxied=True),
        Fault("cut-links", "each link is cut for 20 s, one way or both", cut_links, rate=14, proxied=True),
        Fault("full-disk-postgres", "Postgres's disk is full for 15 s", fill_disk, disk="postgres", fresh=True),
        Fault("full-disk-kafka", "Kafka's disk is full for 15 s", fill_disk, disk="kafka", fresh=True),
        Fault(
            "poison", "1 in 500 messages is poison", poison, afterwards=(dead_letters_are_those_injected,)
        ),
        Fault(
            "bad-webhooks", "10 % of webhooks tripled, reordered, or after the payment's deadline", bad_webhooks,
            kind=LATE, env={"order": {"ISTHMUS_PAYMENT_DEADLINE": "4"}}, in_small=False,
        ),
        Fault(
            "unknown-outcome", "5 % of payments have an unknown outcome", nothing, kind=UNKNOWN, in_small=False
        ),
        Fault(
            "overload", "several times more orders than can be done in time", crowd, orders=4000, rate=300,
            kind=Kind(bulk=0.2), env={"order": {"ISTHMUS_MAX_OPEN_ORDERS": "1000"}}, in_small=False,
            afterwards=(refused_in_time,),
        ),
        Fault(
            "read-again", "afterwards all offsets are reset to 0", nothing, fresh=True, afterwards=(read_again,),
            in_small=False,
        ),
    )
}  # fmt: skip
