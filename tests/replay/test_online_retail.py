"""Nine months of real orders, against an independent sum over the same files."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx2
import pytest

from deploy.local.stack import Stack
from tests.replay.independent import months, totals

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
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_nine_months_are_in_the_ledger_to_the_cent_month_by_month(stack: Stack) -> None:
    said = replay(stack, DATA, "ample")
    files = [str(path) for path in sorted(DATA.glob("*.csv.gz"))]
    gross, net = totals(files)
    for what, amount in (("orders confirmed", gross), ("after cancellations", net)):
        assert re.search(rf"{what}\s+│\s+{amount:,.2f} │\s+{amount:,.2f} │\s+0\.00", said), said
    assert re.search(r"not accounted for\s+│\s+0", said), said
    found = months(files)
    assert len(found) == 9
    for month, expected in found.items():
        books = ledger(stack, month)
        assert books["revenue", "credit"] == expected.sold - expected.sold_tax, month
        assert books["tax", "credit"] == expected.sold_tax, month
        assert books["refunds", "debit"] == expected.back - expected.back_tax, month
        assert books["tax", "debit"] == expected.back_tax, month
    whole = ledger(stack)
    assert sum(amount for (_, side), amount in whole.items() if side == "balance") == 0
    assert whole["receivable", "balance"] == 0


def ledger(stack: Stack, month: str | None = None) -> Mapping[tuple[str, str], Decimal]:
    """The platform's own trial balance, of a month of business time or of all; by account and side."""
    params = {"currency": "GBP"}
    if month is not None:
        first = datetime.fromisoformat(f"{month}-01").replace(tzinfo=ZoneInfo("Europe/London"))
        following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
        params |= {"from": first.isoformat(), "until": following.isoformat()}
    answer = httpx2.get(
        f"{stack.url('order')}/ledger/trial-balance", params=params,
        headers={"Authorization": f"Bearer {stack.token()}"}, timeout=30,
    )  # fmt: skip
    (pounds,) = answer.json()["currencies"]
    return defaultdict(
        Decimal,
        {
            (one["account"], side): Decimal(one[side])
            for one in pounds["accounts"]
            for side in ("debit", "credit", "balance")
        },
    )


def test_with_scarce_stock_refusals_are_listed_and_nothing_is_oversold(stack: Stack) -> None:
    said = replay(stack, DATA / "2010-12.csv.gz", "scarce")
    assert re.search(r"\d+ orders were refused; they are listed in", said), said
    assert re.search(r"not accounted for\s+│\s+0", said), said
    assert re.search(r"I1 .* held", said), said
