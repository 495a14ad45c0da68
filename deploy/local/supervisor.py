"""Keeps the programs of `wanted.json` running: `python -m deploy.local.supervisor DIRECTORY`.

It runs in a session of its own and survives the shell that started it. A program that exits is started again, after
0.2 s at first and up to 5 s when it keeps dying. SIGHUP reads `wanted.json` again: new programs start, missing ones
stop, changed ones restart. SIGTERM stops all, the last tier first, and ends the supervisor. If the supervisor itself
is killed, the kernel ends its programs. It holds `supervisor.lock` as long as it lives, so two never share a stack.
"""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from deploy.local.processes import Identity, die_with_parent, read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
FIRST_DELAY, LONGEST_DELAY, STEADY_AFTER = 0.2, 5.0, 10.0  # seconds
GRACE = 15.0  # seconds between asking a program to stop and killing it
LOG_LIMIT = 20_000_000  # bytes; a longer log becomes <name>.log.1 at the program's next start
_AWAITED = {signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGINT}


@dataclass(frozen=True)
class Program:
    """What to run. Two equal programs are interchangeable: a running one is left alone."""

    name: str
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict[str, str])
    tier: int = 0  # lower tiers stop last
    stop: int = signal.SIGTERM
    code: str = ""  # fingerprint of its source, so that `up` after an edit restarts what was edited

    def digest(self) -> str:
        """Tells two descriptions apart without repeating the secrets in them."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def read_wanted(directory: Path) -> list[Program]:
    entries: list[dict[str, Any]] = read_json(directory / "wanted.json") or []
    return [Program(**entry) for entry in entries]


def write_wanted(directory: Path, programs: Iterable[Program]) -> None:
    write_json(directory / "wanted.json", [asdict(program) for program in programs])


def try_lock(directory: Path) -> IO[str] | None:
    """The supervisor's lock, held until the file is closed; None while a supervisor lives."""
    file = open(directory / "supervisor.lock", "a")  # noqa: SIM115 - stays open as long as the lock is held
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def end_leftovers(directory: Path) -> None:
    """End what a killed supervisor left running: a second Kafka or Postgres on the same data would harm them."""
    state: dict[str, dict[str, Any]] = read_json(directory / "state.json") or {}
    for entry in state.values():
        if entry.get("pid") and entry.get("born"):
            Identity(entry["pid"], entry["born"]).end(entry.get("stop", signal.SIGTERM), GRACE)


class Child:
    """One program and its current process, if it has one."""

    def __init__(self, program: Program, directory: Path) -> None:
        self.program = program
        self.log = directory / "logs" / f"{program.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.identity: Identity | None = None
        self.starts = 0
        self.started = 0.0
        self.last_exit: int | None = None
        self.delay = FIRST_DELAY
        self.due = 0.0

    def start(self) -> None:
        supervisor = os.getpid()

        def in_child() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            die_with_parent(self.program.stop)
            if os.getppid() != supervisor:  # it died before the line above
                os._exit(1)

        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.program.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | self.program.env,
                preexec_fn=in_child,
                # A process group each: a signal from a program to its own group stays in there.
                process_group=0,
            )
        self.identity = Identity.of(self.process.pid)
        self.starts += 1
        self.started = time.time()
        print(f"{self.program.name}: started, pid {self.process.pid}", flush=True)

    def reap(self) -> bool:
        """True if the process has just ended; then the next start is due after the delay."""
        if self.process is None or self.process.poll() is None:
            return False
        self.last_exit = self.process.returncode
        if time.time() - self.started > STEADY_AFTER:
            self.delay = FIRST_DELAY
        self.due = time.monotonic() + self.delay
        print(f"{self.program.name}: ended with {self.last_exit}, next start in {self.delay:.1f} s", flush=True)
        self.delay = min(self.delay * 2, LONGEST_DELAY)
        self.process = self.identity = None
        return True

    def describe(self) -> dict[str, object]:
        return {
            "pid": self.identity.pid if self.identity else None,
            "born": self.identity.born if self.identity else None,
            "stop": self.program.stop,
            "program": self.program.digest(),
            "started": self.started,
            "restarts": max(0, self.starts - 1),
            "last_exit": self.last_exit,
        }


class Supervisor:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.children: dict[str, Child] = {}

    def run(self) -> None:
        """Returns after SIGTERM, when all programs have ended."""
        while True:
            self.reconcile()
            self.start_due()
            self.write_state()
            waiting = [child.due for child in self.children.values() if child.process is None]
            pause = max(0.0, min(waiting) - time.monotonic()) if waiting else 60.0
            received = signal.sigtimedwait(_AWAITED, pause)
            if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
                break
            for child in self.children.values():
                child.reap()
        self.stop(list(self.children.values()))
        self.write_state()

    def reconcile(self) -> None:
        wanted = {program.name: program for program in read_wanted(self.directory)}
        self.stop([child for name, child in self.children.items() if child.program != wanted.get(name)])
        for name, program in wanted.items():
            if name not in self.children:
                self.children[name] = Child(program, self.directory)
        self.children = {name: self.children[name] for name in wanted}

    def start_due(self) -> None:
        for child in self.children.values():
            if child.process is None and child.due <= time.monotonic():
                try:
                    child.start()
                except OSError as error:  # no memory, or the interpreter is being reinstalled: try again later
                    print(f"{child.program.name}: could not be started: {error}", flush=True)
                    child.due = time.monotonic() + LONGEST_DELAY

    def stop(self, children: list[Child]) -> None:
        """All of them have ended when this returns; services before what they depend on."""
        for tier in sorted({child.program.tier for child in children}, reverse=True):
            stopping = [child for child in children if child.program.tier == tier]
            for child in stopping:
                if child.process:
                    child.process.send_signal(child.program.stop)
            until = time.monotonic() + GRACE
            for child in stopping:
                if child.process:
                    try:
                        child.process.wait(max(0.0, until - time.monotonic()))
                    except subprocess.TimeoutExpired:
                        print(f"{child.program.name}: did not stop in {GRACE:.0f} s, killed", flush=True)
                        child.process.kill()
                        child.process.wait()
                child.reap()
        for child in children:
            self.children.pop(child.program.name, None)

    def write_state(self) -> None:
        write_json(
            self.directory / "state.json", {name: child.describe() for name, child in self.children.items()}, mode=0o644
        )


def main() -> None:
    directory = Path(sys.argv[1]).resolve()
    # Signals wait in the queue until run() asks for them, so none is lost or interrupts a start half way.
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    if os.fork():  # whoever started us is not our parent: it neither waits for us nor takes us along
        os._exit(0)
    os.setsid()
    lock, until = try_lock(directory), time.monotonic() + 2
    while lock is None:  # whoever asks whether a supervisor lives holds it for a moment
        if time.monotonic() > until:
            return
        time.sleep(0.01)
        lock = try_lock(directory)
    end_leftovers(directory)
    identity = Identity.of(os.getpid())
    assert identity is not None
    write_json(directory / "supervisor.json", {"pid": identity.pid, "born": identity.born})
    try:
        Supervisor(directory).run()
    finally:
        (directory / "supervisor.json").unlink(missing_ok=True)
        lock.close()


if __name__ == "__main__":
    main()
