"""Crash points: named places at which a process under test ends itself, as by ``kill -9``. In production they do nothing.

Armed by the environment, for tests only: ``ISTHMUS_CRASH_POINTS="relay sent=0.01,call made=0.2"`` gives each point a
chance, ``ISTHMUS_CRASH_LOG`` names a file to which the point is written, for good, before the process ends.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Mapping

POINTS = (
    "transaction before commit",
    "transaction after commit",
    "relay before send",
    "relay sent",
    "relay acknowledged",
    "relay forgot",
    "consumer polled",
    "consumer before offset commit",
    "consumer after offset commit",
    "call claimed",
    "call made",
    "call outcome stored",
)


def chances_of(text: str) -> dict[str, float]:
    """``"relay sent=0.01"`` as a mapping; raises ValueError at a point that does not exist."""
    chances = {
        name.strip(): float(chance) for name, _, chance in (one.partition("=") for one in text.split(",") if one)
    }
    if unknown := chances.keys() - set(POINTS):
        raise ValueError(f"no crash point {', '.join(sorted(unknown))}; there are: {', '.join(POINTS)}")
    return chances


_chances: Mapping[str, float] = chances_of(os.environ.get("ISTHMUS_CRASH_POINTS", ""))
_log = os.environ.get("ISTHMUS_CRASH_LOG", "")


def crash_point(name: str) -> None:
    """End this process here, if the point is armed and its chance has it so."""
    if _chances and random.random() < _chances.get(name, 0.0):
        file = os.open(_log or os.devnull, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{os.getpid()} {name}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
