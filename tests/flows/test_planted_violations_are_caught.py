"""A checker that cannot fail is no checker: what is broken on purpose in running tables is seen, and nothing else."""

from __future__ import annotations

import pytest

from bench import invariants
from bench.plant import VIOLATIONS, plant, undo
from tests.flows.market import Market


@pytest.fixture(scope="module")
async def healthy(market: Market) -> Market:
    lamp, cup = await market.lamps_and_cups()
    await market.buy((lamp, 1), (cup, 2))
    await market.holds_all_invariants()
    return market


@pytest.mark.parametrize("planted", VIOLATIONS)
async def test_a_planted_violation_is_caught(healthy: Market, planted: str):
    await plant(healthy.platform, planted)
    try:
        findings = await invariants.check(healthy.platform, settled_seconds=1, acknowledged=healthy.acknowledged)
    finally:
        await undo(healthy.platform, planted)
    broken = {finding.id: list(finding.broken) for finding in findings if not finding.held}
    assert list(broken) == [planted], broken


async def test_an_acknowledged_order_that_is_gone_is_caught(healthy: Market):
    gone = ("web", "never placed", "01900000-0000-7000-8000-000000000000")
    findings = await invariants.check(healthy.platform, settled_seconds=1, acknowledged=[gone])
    broken = {finding.id: list(finding.broken) for finding in findings if not finding.held}
    assert list(broken) == ["I4"], broken
