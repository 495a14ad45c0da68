"""A checker that cannot fail is no checker: what is broken on purpose is seen, as what it is, and nothing else.

What cannot be planted in running tables is planted in evidence: see tests/unit/bench/test_invariants.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from bench import invariants
from bench.evidence import Evidence, all_tables, collect
from bench.plant import VIOLATIONS, invariant_of, plant, spoil, undo
from bench.platform import PlatformError
from tests.flows.market import Market


@pytest.fixture(scope="module")
async def healthy(market: Market) -> Market:
    """One order is closed, one is to be collected, one was declined."""
    lamp, cup = await market.lamps_and_cups()
    delivered = await market.buy((lamp, 1), (cup, 2))
    await market.booked(delivered["order_id"])
    await market.move(delivered["order_id"], "delivered")
    await market.buy((lamp, 1), token="tok_declined")
    await market.booked((await market.buy((cup, 1)))["order_id"])
    await market.ended(delivered["order_id"], "closed")
    await market.holds_all_invariants()
    return market


@pytest.fixture(scope="module")
async def evidence(healthy: Market) -> Evidence:
    """Its log and the providers' words stay as they are; only tables are broken here."""
    return await collect(healthy.platform, settled_seconds=1, acknowledged=healthy.acknowledged)


async def broken(market: Market, evidence: Evidence) -> Mapping[str, Sequence[str]]:
    findings = invariants.judge(replace(evidence, tables=await all_tables(market.platform, 1)))
    return {finding.id: list(finding.broken) for finding in findings if not finding.held}


@pytest.mark.parametrize("planted", VIOLATIONS)
async def test_a_planted_violation_is_caught_and_mended(healthy: Market, evidence: Evidence, planted: str):
    await plant(healthy.platform, planted)
    try:
        seen = await broken(healthy, evidence)
    finally:
        await undo(healthy.platform, planted)
    assert list(seen) == [invariant_of(planted)], seen
    assert any(VIOLATIONS[planted].told in one for one in seen[invariant_of(planted)]), seen
    assert await broken(healthy, evidence) == {}


async def test_an_acknowledged_order_that_is_gone_is_caught(healthy: Market):
    gone = ("web", "never placed", "01900000-0000-7000-8000-000000000000")
    findings = await invariants.check(healthy.platform, settled_seconds=1, acknowledged=[gone])
    assert [finding.id for finding in findings if not finding.held] == ["I4"], findings


async def test_a_log_that_is_needed_is_not_spoilt(healthy: Market):
    with pytest.raises(PlatformError, match="cannot be mended"):
        await spoil(healthy.platform.stack)


def test_there_is_a_violation_of_every_invariant():
    """I7 is planted in a log that is thrown away: see tests/postgres/bench."""
    assert {invariant_of(planted) for planted in VIOLATIONS} | {"I7"} == {f"I{number}" for number in range(1, 10)}
