"""Small disks that fill up, mounted for real where that is allowed."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from bench.faults.disks import NoDisksError, mounted, remove_disks, small_disk
from deploy.local.stack import Stack


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    stack = Stack(tmp_path)
    try:
        with small_disk(stack, "postgres", 1):
            pass
    except NoDisksError as error:
        pytest.skip(str(error))
    return stack


def test_a_full_disk_takes_nothing_until_it_is_freed(stack: Stack):
    with small_disk(stack, "kafka", 2) as disk:
        assert disk.fill() > 1_900_000
        with pytest.raises(OSError, match="No space left") as full:
            (disk.folder / "data").write_bytes(b"x" * 10_000)
        assert full.value.errno == errno.ENOSPC
        disk.free()
        (disk.folder / "data").write_bytes(b"x" * 1_000_000)
        disk.fill(leave=200_000)
        assert 190_000 < disk.left() < 300_000
    assert not mounted(stack)
    assert not any((stack.directory / "kafka" / "data").iterdir())


def test_what_a_killed_run_left_behind_is_replaced_and_removed(stack: Stack, monkeypatch: pytest.MonkeyPatch):
    left = stack.directory / "postgres"
    with monkeypatch.context() as patch:
        patch.setattr("bench.faults.disks.remove_disks", mounted)  # the run is killed before it comes to that
        with small_disk(stack, "postgres", 1):
            (left / "data").touch()
        assert mounted(stack) == [left]
        with small_disk(stack, "postgres", 1):
            assert mounted(stack) == [left]
            assert not (left / "data").exists()
    remove_disks(stack)
    assert mounted(stack) == []


def test_a_disk_is_not_mounted_over_data(stack: Stack):
    (stack.directory / "postgres" / "data").mkdir(parents=True)
    with pytest.raises(NoDisksError, match="holds data"), small_disk(stack, "postgres", 1):
        pass
