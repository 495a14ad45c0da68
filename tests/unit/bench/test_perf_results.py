"""A missed aim is told and no failure; a broken invariant, or a benchmark that did not run, is one."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import orjson
from rich.console import Console

from bench.perf.picture import lines
from bench.perf.results import Goal, Result, at_least, at_most, exactly, exit_code, goals_table, read


def result(folder: Path, *goals: Goal, broken: list[str] | None = None) -> Result:
    machine = {"processor": "any", "cores": 2}
    return Result("throughput", 7, machine, "v1", False, folder, list(goals), {"kinds": {"single": 3}}, broken or [])


def shown(results: list[Result], failed: dict[str, str]) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(goals_table(results, failed))
    return out.getvalue()


def test_goals_are_judged():
    assert at_least("rate", 1500, 1500, "orders/s") == Goal("rate", ">= 1500", 1500, "orders/s", holds=True)
    assert not at_least("rate", 1500, 1499.99, "orders/s").holds
    assert at_most("p50", 20, 20, "ms") == Goal("p50", "<= 20", 20, "ms", holds=True)
    assert not at_most("p50", 20, 20.1, "ms").holds
    assert not at_most("p50", 20, float("nan"), "ms").holds
    assert exactly("sold", 500, 500, "orders").holds
    assert not exactly("sold", 500, 501, "orders").holds


def test_a_result_is_kept_in_the_agreed_form(tmp_path: Path):
    kept = result(tmp_path / "results", at_least("rate", 1500, 700.12345, "orders/s"))
    kept.pictures["throughput.svg"] = "<svg/>"
    path = kept.write()
    content = orjson.loads(path.read_bytes())
    assert path == tmp_path / "results" / "throughput.json"
    assert {name: content[name] for name in ("name", "seed", "machine", "goals", "kinds")} == {
        "name": "throughput",
        "seed": 7,
        "machine": {"processor": "any", "cores": 2},
        "goals": [{"name": "rate", "goal": ">= 1500", "figure": 700.123, "unit": "orders/s", "holds": False}],
        "kinds": {"single": 3},
    }
    assert read(tmp_path / "results", "throughput") == content
    assert read(tmp_path / "results", "latency") is None
    assert (tmp_path / "results" / "throughput.svg").read_text() == "<svg/>"


def test_a_missed_aim_is_told_and_is_no_failure(tmp_path: Path):
    missed = result(tmp_path, at_least("rate", 1500, 700, "orders/s"), at_most("p50", 20, 18, "ms"))
    assert exit_code([missed], {}) == 0
    text = shown([missed], {})
    assert text.count("missed") == 1
    assert text.count("holds") == 1


def test_a_broken_invariant_fails(tmp_path: Path):
    broken = result(tmp_path, at_least("rate", 1500, 1700, "orders/s"), broken=["I1: oversold"])
    assert exit_code([broken], {}) == 1
    assert "BROKEN" in shown([broken], {})


def test_a_benchmark_that_did_not_run_fails():
    assert exit_code([], {"flash": "StackError: no Java"}) == 1
    assert "did not run" in shown([], {"flash": "StackError: no [Java]"})


def test_a_picture_holds_a_point_for_each_figure():
    drawn = lines("a < b", "orders", "ms", {"one": [(10, 1), (100, 3)], "two": [(1000, 2.5)]}, logarithmic=True)
    assert len(ElementTree.fromstring(drawn).findall("{*}circle")) == 3
    assert "a &lt; b" in drawn
    assert "<svg" in lines("nothing", "orders", "ms", {})
