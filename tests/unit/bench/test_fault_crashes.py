"""Which crash points have been hit too seldom is told, in all and for each service that passes them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench.faults.crashes import CALLERS, hits, lacking
from bench.platform import SERVICES
from shared.crash import POINTS


def enough(number: int) -> Counter[tuple[str, str]]:
    return Counter(
        {(service, point): number for point in POINTS for service in (CALLERS if "call" in point else SERVICES)}
    )


def test_nothing_is_lacking_when_all_were_hit():
    assert lacking(enough(5), in_all=10, each=5) == []


def test_what_is_lacking_in_all_and_in_one_service_is_named():
    found = enough(5)
    found["pricing", "relay sent"] = 1
    assert lacking(found, in_all=10, each=5) == ["relay sent in pricing"]
    assert "call made" in lacking(found, in_all=11, each=0)


def test_hits_are_read_from_the_logs_of_the_services(tmp_path: Path):
    (tmp_path / "order.crashes").write_text("relay sent\nrelay sent\ncall made\n")
    assert hits(tmp_path) == {("order", "relay sent"): 2, ("order", "call made"): 1}
