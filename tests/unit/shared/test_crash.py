"""A process under test ends at the point that it chose, and says which; others never do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.crash import POINTS, chosen_from

ENDLESS = "from shared.crash import crash_point\nfor _ in range(5): crash_point('relay sent')\nprint('lives')"


def run(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], env=os.environ | env, capture_output=True, text=True, check=False
    )


def test_an_armed_process_ends_at_its_point_and_says_so(tmp_path: Path):
    log = tmp_path / "crashes"
    ended = run(ENDLESS, ISTHMUS_CRASH_POINTS="relay sent", ISTHMUS_CRASH_LOG=str(log))
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "")
    assert log.read_text() == "relay sent\n"


def test_a_process_lives_through_points_that_are_not_its_own_and_without_being_armed():
    assert run(ENDLESS, ISTHMUS_CRASH_POINTS="call made").stdout == "lives\n"
    assert run(ENDLESS).stdout == "lives\n"


def test_a_point_that_does_not_exist_is_refused_by_name():
    assert chosen_from("all") == POINTS
    with pytest.raises(ValueError, match="no crash point relay snet; there are: transaction before commit"):
        chosen_from("relay snet")


def test_every_point_is_somewhere_in_the_kernel():
    kernel = "".join(path.read_text() for path in Path("shared").glob("*.py"))
    assert all(f'crash_point("{name}")' in kernel for name in POINTS)


def test_the_point_that_has_had_its_turn_least_often_is_next(tmp_path: Path):
    log = tmp_path / "crashes"
    log.write_text("call made\n" * 3 + "relay sent\n" * 2)
    assert run(ENDLESS, ISTHMUS_CRASH_POINTS="relay sent,call made", ISTHMUS_CRASH_LOG=str(log)).returncode < 0
    # The other has two turns for each of this one's, and has had one and a half.
    both = "relay sent,call made,call made"
    assert run(ENDLESS, ISTHMUS_CRASH_POINTS=both, ISTHMUS_CRASH_LOG=str(log)).stdout == "lives\n"
