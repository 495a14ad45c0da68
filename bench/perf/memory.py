"""What the whole stack takes of the memory, idle and under load: PSS of every process, Postgres with all backends.

What stands in for providers of the outside world (issuer, payments, carrier, mail) counts as well.
"""

from __future__ import annotations

import asyncio

from bench import machine
from bench.perf.measuring import MIB, facts, lengths, measured, run_table
from bench.perf.results import Result, at_most, plain
from bench.perf.stage import Stage

GOAL = 2048  # MiB
HEAP = 512  # MiB, of them Kafka's: -Xmx
RATE = 200.0  # orders a second
SETTLE = 10.0  # seconds until a stack that was just started is idle


async def run(stage: Stage, result: Result) -> None:
    await stage.prepare()
    await asyncio.sleep(SETTLE if not stage.quick else 1.0)
    idle = await asyncio.to_thread(machine.memory, stage.stack)
    most: dict[str, int] = {}
    watching = asyncio.create_task(_watch(stage, most))
    try:
        trial, held = await measured(stage, RATE / 4 if stage.quick else RATE)
    finally:
        watching.cancel()
    if not held:
        result.notes.append("The lag was not bounded: the load was more than the stack could bear.")
    loaded = {name: max(most.get(name, 0), size) for name, size in trial.memory.items()}
    for name, sizes in (("idle", idle), ("loaded", loaded)):
        result.goals.append(at_most(f"whole stack, {name}", GOAL, sum(sizes.values()) / MIB, "MiB"))
    limit = heap_limit(stage)
    result.goals.append(at_most("Kafka's heap, at most", HEAP, limit, "MiB"))
    result.facts |= {
        "idle_mib": {name: round(size / MIB, 1) for name, size in idle.items()},
        "loaded_mib": {name: round(size / MIB, 1) for name, size in loaded.items()},
        "load": facts(trial),
        "measured_s": lengths(stage).measured,
    }
    rows = [(name, round(idle.get(name, 0) / MIB, 1), round(size / MIB, 1)) for name, size in loaded.items()]
    rows.append(("all", round(sum(idle.values()) / MIB, 1), round(sum(loaded.values()) / MIB, 1)))
    result.tables += [plain("Memory, PSS in MiB", ("process", "idle", "loaded"), rows),
                      run_table("Load", {"loaded": result.facts["load"]})]  # fmt: skip


def heap_limit(stage: Stage) -> float:
    """MiB that the JVM may use for its heap, as its command line says."""
    pid = stage.stack.pid("kafka")
    words = (machine.PROC / str(pid) / "cmdline").read_text().split("\0") if pid else []
    limits = [word.removeprefix("-Xmx") for word in words if word.startswith("-Xmx")]
    if not limits:
        raise ValueError("Kafka does not run here, or says nothing of its heap")
    return float(limits[-1][:-1]) * {"k": 1 / 1024, "m": 1, "g": 1024}[limits[-1][-1].lower()]


async def _watch(stage: Stage, most: dict[str, int]) -> None:
    """The most that each process has had, by looking every few seconds."""
    while True:
        for name, size in (await asyncio.to_thread(machine.memory, stage.stack)).items():
            most[name] = max(most.get(name, 0), size)
        await asyncio.sleep(3.0)
