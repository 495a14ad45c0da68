"""A child that is killed is followed by another one, without importing again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

from deploy.local.supervisor import ROOT

MAIN = """
import os, signal, sys
from thing import imported
if __name__ == "__main__":
    from uuid_utils import uuid7
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    print(os.getpid(), imported, sys.argv[1:], str(uuid7()).rsplit("-", 1)[1], flush=True)
    while True:
        signal.pause()
"""


@pytest.fixture
def thing(tmp_path: Path) -> Generator[subprocess.Popen[str]]:
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / "__init__.py").write_text("import os\nimport uuid_utils\nimported = os.getpid()\n")
    (tmp_path / "thing" / "__main__.py").write_text(MAIN)
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    command = [sys.executable, "-m", "bench.faults.forks", "thing"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def said(thing: subprocess.Popen[str]) -> tuple[int, str, str, str]:
    assert thing.stdout
    pid, imported, arguments, random = thing.stdout.readline().split()
    return int(pid), imported, arguments, random


def test_a_killed_child_is_followed_by_another_with_the_same_imports_and_other_random_numbers(
    thing: subprocess.Popen[str],
):
    first = said(thing)
    os.kill(first[0], signal.SIGKILL)
    second = said(thing)
    assert first[0] != second[0]
    assert first[1:3] == second[1:3] == (str(thing.pid), "[]")
    assert first[3] != second[3]


def test_being_asked_to_stop_is_handed_on_and_the_child_decides_how_it_ends(thing: subprocess.Popen[str]):
    child = said(thing)[0]
    thing.terminate()
    assert thing.wait(10) == 7
    assert not psutil.pid_exists(child)


def test_a_child_that_ends_by_itself_ends_it(thing: subprocess.Popen[str]):
    os.kill(said(thing)[0], signal.SIGTERM)
    assert thing.wait(10) == 7


def test_the_child_dies_with_it(thing: subprocess.Popen[str]):
    child = psutil.Process(said(thing)[0])
    thing.kill()
    child.wait(10)
