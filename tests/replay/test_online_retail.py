"""A month of real orders, against an independent sum over the same file."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.stack import Stack
from tests.replay.independent import totals

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "online-retail"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not DATA.exists(), reason="the Online Retail files are not on this machine; see docs/how-to/replay.md"
    ),
]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    stack = Stack(ROOT / ".local" / "replay")
    stack.clean()
    stack.up()
    yield stack
    stack.clean()


def replay(stack: Stack, file: Path, stock: str) -> str:
    command = [sys.executable, "-m", "bench.replay", str(file), "--stock", stock, "--stack", str(stack.directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("month", ["2010-12", "2011-05"])
def test_with_ample_stock_the_platform_and_the_file_agree_to_the_cent(stack: Stack, month: str) -> None:
    file = DATA / f"{month}.csv.gz"
    said = replay(stack, file, "ample")
    gross, net = totals([str(file)])
    for what, amount in (("orders confirmed", gross), ("after cancellations", net)):
        assert re.search(rf"{what}\s+│\s+{amount:,.2f} │\s+{amount:,.2f} │\s+0\.00", said), said
    assert re.search(r"not accounted for\s+│\s+0", said), said


def test_with_scarce_stock_refusals_are_listed_and_nothing_is_oversold(stack: Stack) -> None:
    said = replay(stack, DATA / "2010-12.csv.gz", "scarce")
    assert re.search(r"\d+ orders were refused; they are listed in", said), said
    assert re.search(r"not accounted for\s+│\s+0", said), said
    assert re.search(r"I1 .* held", said), said
