"""The machine, and what each process of the stack takes of it: CPU seconds and bytes, from /proc."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deploy.local.stack import Stack
from deploy.local.supervision import Supervision

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
PARENT, USER, CHILDREN = 1, slice(11, 13), slice(13, 15)  # fields of /proc/<pid>/stat behind the program's name


def describe() -> dict[str, Any]:
    """Processor, cores, memory in MiB, system."""
    info = (PROC / "cpuinfo").read_text() if (PROC / "cpuinfo").exists() else ""
    models = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_mib": pages // 1_048_576,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def cpu(stack: Stack) -> dict[str, float]:
    """Seconds of CPU, user and system, that each part has used since its start; Postgres with all its backends."""
    return {name: _cpu(pid, descendants=name == "postgres") for name, pid in _pids(stack).items()}


def memory(stack: Stack) -> dict[str, int]:
    """PSS in bytes by part: what it shares with others counts in parts, so that the sum is what is really used."""
    return {
        name: sum(pss(one) for one in ([pid, *_below(pid)] if name == "postgres" else [pid]))
        for name, pid in _pids(stack).items()
    }


def pss(pid: int) -> int:
    """Bytes that belong to a process alone, and its part of what it shares; 0 when it is gone."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def used(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Seconds of CPU from one reading to the other. Raises ValueError when a process was started anew meanwhile."""
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    if again := [name for name, seconds in spent.items() if seconds < -0.05]:
        raise ValueError(f"{', '.join(again)} started anew while it was measured")
    return spent


def cpu_of_self() -> float:
    """Seconds of CPU of this process."""
    return _cpu(os.getpid(), descendants=False)


def _pids(stack: Stack) -> dict[str, int]:
    supervisor = Supervision(stack.directory).supervisor()
    above = {"supervisor": supervisor.pid} if supervisor else {}
    return {name: pid for name in stack.ports if (pid := stack.pid(name))} | above


def _cpu(pid: int, *, descendants: bool) -> float:
    ticks = sum(map(int, _stat(pid)[USER]))
    if descendants:  # those that have ended count in their parent
        ticks += sum(map(int, _stat(pid)[CHILDREN]))
        ticks += sum(sum(map(int, _stat(one)[USER])) for one in _below(pid))
    return ticks / TICKS


def _stat(pid: int) -> list[str]:
    try:
        return (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["0"] * 20


def _below(pid: int) -> list[int]:
    return [one for one in _all() if int(_stat(one)[PARENT]) == pid]


def _all() -> Iterator[int]:
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
