"""Long work shows progress: what is done now, and how many seconds it has been."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

Say = Callable[[str], None]


def clock(console: Console) -> Say:
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"  {time.monotonic() - began:6.1f} s  {text}", style="dim", markup=False)

    return say
