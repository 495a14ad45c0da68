"""Each benchmark for a few seconds, on a stack of its own: the figures mean nothing, but it runs and nothing breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.perf.__main__ import BENCHMARKS, measure
from bench.perf.results import read


@pytest.mark.long
@pytest.mark.parametrize("name", BENCHMARKS)
async def test_a_benchmark_runs_and_keeps_what_it_found(name: str, tmp_path: Path):
    result = await measure(name, 1, tmp_path, quick=True, million=False)
    assert result.broken == []
    kept = read(tmp_path, name)
    assert kept is not None
    assert kept["goals"]
    assert all(goal["figure"] > 0 for goal in kept["goals"])
    assert set(kept["invariants"].values()) == {"held"}
