"""Small disks: the data of a stack's Postgres or Kafka on a file system of their own, which can be filled."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.stack import Stack

WHERE = {"postgres": Path("postgres"), "kafka": Path("kafka") / "data"}  # in the stack's directory
_DEVICE = "isthmus-small-disk"  # what such mounts are named in /proc/self/mounts
_PIECE = b"\0" * (1 << 20)


class NoDisksError(Exception):
    """This machine or user cannot mount file systems; the message says what is missing."""


class Disk:
    """A mounted small disk."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._filler = folder / ".filler"

    def fill(self, leave: int = 0) -> int:
        """Take up all space but ``leave`` bytes; returns how many bytes that took."""
        with self._filler.open("ab", buffering=0) as file:
            size = len(_PIECE)
            while size:
                try:
                    if file.write(_PIECE[:size]) < size:
                        size //= 2
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2
            if leave:
                file.truncate(max(0, file.tell() - leave))
            return os.fstat(file.fileno()).st_size

    def free(self) -> None:
        """Give back what `fill` has taken."""
        self._filler.unlink(missing_ok=True)

    def left(self) -> int:
        """Bytes that are free."""
        return shutil.disk_usage(self.folder).free


@contextmanager
def small_disk(stack: Stack, part: str, megabytes: int) -> Generator[Disk]:
    """A disk of that size for the data of ``postgres`` or ``kafka``, before the stack's first start.

    In the end the stack is stopped, if it runs, and the disk is gone with all that is on it; one that a killed run
    has left there goes first. Raises NoDisksError.
    """
    folder = stack.directory / WHERE[part]
    if folder in mounted(stack):
        _remove(stack, [folder])
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise NoDisksError(f"{folder} holds data already: a small disk is mounted before the first start")
    _check()
    _do("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", _DEVICE, str(folder))
    try:
        yield Disk(folder)
    finally:
        remove_disks(stack)


def remove_disks(stack: Stack) -> None:
    """Stop the stack and unmount its small disks, if it has any: before `Stack.clean`, which removes directories."""
    _remove(stack, mounted(stack))


def mounted(stack: Stack) -> list[Path]:
    """The small disks of this stack."""
    mounts = Path("/proc/self/mounts")
    lines = mounts.read_text().splitlines() if mounts.exists() else []
    folders = [Path(line.split()[1].replace("\\040", " ")) for line in lines if line.startswith(_DEVICE + " ")]
    return [folder for folder in folders if folder.is_relative_to(stack.directory)]


def _remove(stack: Stack, folders: list[Path]) -> None:
    if folders:
        stack.down()
    for folder in folders:
        _do("umount", "--lazy", str(folder))  # lazy: a process that outlived the stack may still hold a file


def _check() -> None:
    missing = [
        what
        for what, there in {
            "Linux": sys.platform == "linux",
            "root": os.geteuid() == 0,
            "the command mount": shutil.which("mount") is not None,
        }.items()
        if not there
    ]
    if missing:
        raise NoDisksError(f"small disks need {' and '.join(missing)}")


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoDisksError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
