"""Processes told apart by pid and birth, so that a recycled pid is never signalled in place of ours."""

import ctypes
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_PR_SET_PDEATHSIG = 1


def birth(pid: int) -> str | None:
    """When the process was born, as an opaque text; None if there is none, or only a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if sys.platform == "linux":
            # The boot and the ticks since: unlike psutil's create_time() they stay the same when the clock is set.
            ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
            return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{ticks}"
        return f"{process.create_time():.2f}"
    except (psutil.Error, OSError):
        return None


@dataclass(frozen=True)
class Identity:
    pid: int
    born: str

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        born = birth(pid)
        return cls(pid, born) if born is not None else None

    def alive(self) -> bool:
        return birth(self.pid) == self.born

    def send(self, number: int) -> bool:
        """Signal exactly this process; False if it is gone."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, seconds: float) -> bool:
        """True once the process is gone, False if it is still there after `seconds`."""
        until = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def end(self, number: int = signal.SIGTERM, grace: float = 15.0) -> None:
        """The process is gone when this returns: asked first, killed after `grace` seconds."""
        if self.send(number) and not self.wait(grace):
            self.send(signal.SIGKILL)
            self.wait(5)


def die_with_parent(number: int) -> None:
    """Have the kernel send us `number` when our parent dies. Linux only; elsewhere `up` ends what was left over."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def read_json(path: Path) -> Any:
    """The file's content, or None when it is missing or torn (both mean: nothing is known)."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def write_json(path: Path, content: object, mode: int = 0o600) -> None:
    """Readers see the old content or the new one, never half of it; others on the machine see nothing."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        json.dump(content, file, indent=1)
    part.replace(path)
