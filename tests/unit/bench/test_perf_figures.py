"""Figures are only as good as the arithmetic behind them."""

from __future__ import annotations

import pytest

from bench.perf.figures import growth, histogram, most_open, per, quantile, summary, within
from bench.perf.search import Search


def test_a_quantile_is_a_value_that_was_measured():
    ordered = [float(number) for number in range(1, 101)]
    assert [quantile(ordered, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert quantile([7.0], 0.5) == 7.0
    assert quantile([1.0, 2.0], 0.99) == 2.0


def test_a_summary_is_in_milliseconds_whatever_the_order():
    assert summary([0.3, 0.1, 0.2]) == {"p50": 200.0, "p90": 300.0, "p99": 300.0, "max": 300.0, "count": 3}


def test_a_histogram_loses_nothing_and_keeps_its_limits():
    found = histogram([0.001, 0.0011, 0.1, 60.0])
    assert (found["1"], found["2"], found["100"], found["inf"]) == (1, 1, 1, 1)
    assert sum(found.values()) == 4


def test_a_backlog_that_is_served_as_fast_as_it_comes_does_not_grow():
    due = [number / 100 for number in range(2000)]
    assert growth(due, [at + 0.5 for at in due], 10, 20) == pytest.approx(0, abs=1)
    # Of 100 a second 80 are done: 20 a second are left over.
    assert growth(due, [number / 80 for number in range(1600)], 10, 20) == pytest.approx(20, rel=0.05)
    assert growth(due, [], 10, 20) == pytest.approx(100, rel=0.05)


def test_a_backlog_that_comes_in_large_pieces_does_not_grow_either():
    due = [number // 500 * 1.0 for number in range(20 * 500)]
    done = [at + 0.7 for at in due]
    assert growth(due, done, 10, 20, step=1.0) == pytest.approx(0, abs=1)


def test_what_lies_within_a_window_is_counted_once():
    assert within([1.0, 2.0, 3.0], 1.0, 2.0) + within([1.0, 2.0, 3.0], 2.0, 3.0) == 2


def test_seconds_of_all_are_milliseconds_of_one():
    assert per({"order": 3.0}, 1000) == {"order": 3.0}
    assert per({"order": 3.0}, 0) == {"order": 0.0}


@pytest.mark.parametrize("capacity", [30.0, 90.0, 200.0, 417.0, 1999.0, 6000.0])
def test_the_search_finds_the_capacity_and_never_more(capacity: float):
    search = Search(200, trials=12)
    while (rate := search.next) is not None:
        search.enter(rate, rate <= capacity)
    assert search.held <= capacity < search.broke
    assert search.broke / search.held <= 1.08


def test_the_search_ends_when_it_may_try_no_more():
    search = Search(100, trials=3)
    while (rate := search.next) is not None:
        search.enter(rate, held=True)
    assert (search.tried, search.held, search.broke) == (3, 400, 0)
    nothing = Search(100, trials=3)
    while (rate := nothing.next) is not None:
        nothing.enter(rate, held=False)
    assert nothing.held == 0


def test_the_most_that_are_open_at_a_time():
    due, done = [0.0, 1.0, 2.0, 3.0, 9.0], [0.5, 2.5, 3.5, 9.5]
    assert most_open(due, done, 0.0, 10.0) == 2
    assert most_open(due, done, 0.0, 1.5) == 1
    assert most_open([], [], 0.0, 10.0) == 0
