"""Crash points: named places at which a process under test ends itself as by ``kill -9``; else nothing.

Armed by the environment, for tests only: with ``ISTHMUS_CRASH_POINTS="relay sent,call made"`` a process chooses one of
these points and ends there, the first time it comes by or one of the next few. ``ISTHMUS_CRASH_LOG`` names a file into
which it writes the point before; by it, the point is chosen that has had its turn least often. One that is named twice
has two turns. With ``all`` it chooses among all.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

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
    "call claimed",  # the provider, the carrier or the mail server has not been asked yet
    "call made",
    "call outcome stored",
)
PASSES = 5  # at most, before it ends


def chosen_from(text: str) -> Sequence[str]:
    """The points that ``text`` names; raises ValueError at one that does not exist."""
    names = POINTS if text == "all" else tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := set(names) - set(POINTS):
        raise ValueError(f"no crash point {', '.join(sorted(unknown))}; there are: {', '.join(POINTS)}")
    return names


_names = chosen_from(os.environ.get("ISTHMUS_CRASH_POINTS", ""))
_log = Path(os.environ.get("ISTHMUS_CRASH_LOG", os.devnull))
_dice = random.SystemRandom()  # a fork shares no state with its siblings
_fate: tuple[str, int] | None = None  # chosen when the first point is passed: a fork has one of its own


def crash_point(name: str) -> None:
    """End this process here, if this is the point that it chose."""
    if _names:
        _pass(name)


def _pass(name: str) -> None:
    global _fate
    if _fate is None:
        turns = Counter(_log.read_text().splitlines() if _log.exists() else ())
        chosen = min(_names, key=lambda one: (turns[one] / _names.count(one), _dice.random()))
        _fate = chosen, _dice.randint(1, PASSES)
    point, left = _fate
    if name != point:
        return
    if left > 1:
        _fate = point, left - 1
        return
    file = os.open(_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{name}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
