"""A matrix that cannot fail is no matrix: what is broken is counted, kept, run again, and fails the command."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from bench.faults.results import Results, Row, show
from bench.finding import Finding


def row(**more: object) -> Row:
    return Row("kill-kafka", 1, "full", "v1", **more)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("invariant", "broken", "column"),
    [
        ("I1", "cup in leeds: on hand 3", "oversold"),
        ("I2", "paid of order 1: 3", "unbalanced"),
        ("I3", "order 1 is closed: kept 3, due 4", "unbalanced"),
        ("I4", "shop a-1 was acknowledged as 1, which is not there", "lost"),
        ("I4", "shop a-1: 2 orders", "doubled"),
        ("I5", "order 1 is placed and stuck", "stuck"),
        ("I6", "topic 1: version 3, in Kafka 2", "lost"),
        ("I7", "topic 1: sequence 3, expected 2", "other"),
        ("I8", "pricing price_orders: 3 applied, 4 marked", "doubled"),
        ("I9", "pricing: 3 consumed, 4 accounted for", "other"),
    ],
)
def test_what_breaks_an_invariant_is_counted_where_it_belongs(invariant: str, broken: str, column: str):
    counted = row()
    assert counted.held
    counted.count([Finding(invariant, "", 1, [broken]), Finding("I1", "", 1, [])], "at rest")
    assert getattr(counted, column) == 1
    assert not counted.held
    assert counted.broken == [f"at rest, {invariant}: {broken}"]


def test_only_a_row_that_held_with_this_source_is_not_run_again(tmp_path: Path):
    kept = Results(tmp_path / "faults.json")
    kept.enter(row())
    bad = Row("poison", 1, "full", "v1")
    bad.fail("lost", "one")
    kept.enter(bad)
    again = Results(tmp_path / "faults.json")
    assert again.find("kill-kafka", 1, "full", "v1") == row()
    assert again.find("kill-kafka", 1, "full", "v2") is None
    assert again.find("kill-kafka", 1, "small", "v1") is None
    assert again.find("poison", 1, "full", "v1") is None


def test_a_row_replaces_the_one_before(tmp_path: Path):
    kept = Results(tmp_path / "faults.json")
    kept.enter(row(orders=1))
    kept.enter(row(orders=2))
    assert [one.orders for one in Results(tmp_path / "faults.json").rows] == [2]


def test_the_table_says_whether_all_held():
    out = io.StringIO()
    good, bad = row(orders=20_000), Row("poison", 2, "full", "v1")
    assert show([good], Console(file=out, width=120))
    bad.fail("stuck", "after 60 s there is still under way: {'order.outbox': 3}")
    assert not show([good, bad], Console(file=out, width=120))
    assert "poison, seed 2: after 60 s" in out.getvalue()
