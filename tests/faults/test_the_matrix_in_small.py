"""Each fault once, with few orders, one after the other on one stack. The whole is ``make faults``."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from bench.faults.catalogue import FAULTS
from bench.faults.stage import Stage

SEED = int(os.environ.get("ISTHMUS_TEST_SEED", "1"))


@pytest.fixture(scope="module")
async def stage() -> AsyncGenerator[Stage]:
    async with Stage.open(Path(".local/test-faults"), print, proxied=True) as opened:
        yield opened


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.disk is None and fault.in_small])
async def test_nothing_is_lost_doubled_stuck_or_oversold(stage: Stage, name: str):
    row = await stage.run(FAULTS[name], SEED, small=True, version="")
    print(row.facts)
    assert row.held, row.broken
    assert row.orders > FAULTS[name].small
