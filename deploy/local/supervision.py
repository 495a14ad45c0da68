"""What runs of one stack: has its supervisor run programs, and tells who lives, who is ready, and who keeps dying."""

import contextlib
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deploy.local.errors import StackError
from deploy.local.processes import Identity, read_json
from deploy.local.supervisor import ROOT, Program, end_leftovers, read_wanted, try_lock, write_wanted

_TOO_MANY_RESTARTS = 3  # while waiting: it will not recover by itself
_REFUSED = 4  # exit code of a service that will not start on this database, however often it is tried
_SOURCES = (".py", ".sql", ".html", ".txt", ".j2", ".json", ".toml")


class Supervision:
    """The processes of the stack in this directory. Any number of objects may stand for the same ones."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def state(self) -> dict[str, dict[str, Any]]:
        """What the supervisor says of each of its programs."""
        return read_json(self.directory / "state.json") or {}

    def wanted(self) -> list[Program]:
        return read_wanted(self.directory)

    def identity(self, name: str) -> Identity | None:
        entry = self.state().get(name, {})
        return Identity(entry["pid"], entry["born"]) if entry.get("pid") and entry.get("born") else None

    def pid(self, name: str) -> int | None:
        """The process's id; None when it does not run."""
        identity = self.identity(name)
        return identity.pid if identity and identity.alive() else None

    def supervisor(self) -> Identity | None:
        """The live supervisor. Its lock decides: it is let go by the kernel however the supervisor ends."""
        lock = try_lock(self.directory)
        if lock is not None:
            lock.close()
            return None
        known = read_json(self.directory / "supervisor.json")
        return Identity(**known) if known else None

    def prepare(self) -> list[str]:
        """Return what runs under a supervisor; what a killed one left over has ended then."""
        (self.directory / "logs").mkdir(exist_ok=True)
        running = [name for name in self.state() if self.pid(name)]
        if not self.supervisor() and running:
            end_leftovers(self.directory)
            return []
        return running

    def run(self, programs: list[Program]) -> None:
        """Have the supervisor run these too, in place of older ones of the same name."""
        wanted = self.wanted() if self.supervisor() else []
        names = {program.name for program in programs}
        merged = sorted([p for p in wanted if p.name not in names] + programs, key=lambda p: p.tier)
        if self.supervisor() and all(program in wanted for program in programs):
            return
        self._signal(merged)

    def stop(self, name: str) -> None:
        """Have the supervisor run all but this one, which has ended when this returns."""
        self._signal([program for program in self.wanted() if program.name != name])
        self._until(lambda: name not in self.state(), 30, f"{name} did not stop")

    def forget(self) -> None:
        """End what a killed supervisor left over; nothing is wanted any more."""
        end_leftovers(self.directory)
        for name in ("wanted.json", "state.json", "supervisor.json"):
            (self.directory / name).unlink(missing_ok=True)

    def wait(self, names: Iterable[str], ready: Callable[[str], bool], seconds: float) -> None:
        """Returns when all are ready; raises StackError with the end of a log if one does not get there."""
        waiting = list(names)
        until = time.monotonic() + seconds
        before = {name: self.state().get(name, {}).get("restarts", 0) for name in waiting}
        while waiting := [name for name in waiting if not ready(name)]:
            for name in waiting:
                entry = self.state().get(name, {})
                if entry.get("restarts", 0) > before[name] and entry.get("last_exit") == _REFUSED:
                    raise StackError(f"{name} refuses to start: {_last_error(self.log(name))}.")
                if entry.get("restarts", 0) - before[name] >= _TOO_MANY_RESTARTS:
                    raise self._failure(name, f"{name} keeps ending (last exit code {entry.get('last_exit')})")
                if time.monotonic() > until:
                    raise self._failure(name, f"{name} was not ready in {seconds:.0f} s")
            time.sleep(0.05)

    def jobs(self, jobs: Mapping[str, tuple[list[str], Mapping[str, str]]]) -> None:
        """Run the modules side by side; all have succeeded when this returns."""

        def run(title: str, module: list[str], env: Mapping[str, str]) -> None:
            log = self.log(title.replace(" ", "-"))
            with log.open("wb") as output:
                command = [sys.executable, "-m", *module]
                everything = os.environ | dict(env)
                done = subprocess.run(
                    command, cwd=ROOT, env=everything, stdout=output, stderr=subprocess.STDOUT, check=False
                )
            if done.returncode != 0:
                raise StackError(
                    f"`python -m {' '.join(module)}` failed. The end of {_short(log)}:\n\n{_tail(log)}\n\n"
                    "After a change run `make up` again; Kafka and Postgres keep running meanwhile."
                )

        with ThreadPoolExecutor() as pool:
            for job in [pool.submit(run, title, module, env) for title, (module, env) in jobs.items()]:
                job.result()

    def _signal(self, programs: list[Program]) -> None:
        write_wanted(self.directory, programs)
        supervisor = self.supervisor()
        if supervisor is None:
            (self.directory / "logs").mkdir(exist_ok=True)
            with self.log("supervisor").open("ab") as log:
                command = [sys.executable, "-m", "deploy.local.supervisor", str(self.directory)]
                subprocess.run(
                    command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=True
                )
            self._until(lambda: self.supervisor() is not None, 60, "The supervisor did not start")
        else:
            supervisor.send(signal.SIGHUP)
        # It has read the file when its state names exactly these processes, started from these descriptions.
        self._until(lambda: self._acknowledged(programs), 60, "The supervisor does not answer")

    def _acknowledged(self, programs: list[Program]) -> bool:
        state = self.state()
        return set(state) == {program.name for program in programs} and all(
            state[program.name].get("program") == program.digest() for program in programs
        )

    def _failure(self, name: str, what: str) -> StackError:
        return StackError(
            f"{what}. The end of {_short(self.log(name))}:\n\n{_tail(self.log(name))}\n\n"
            "It is tried again in the background. After a change run `make up` again; `make down` stops everything, "
            "`make clean` also removes the local data."
        )

    def _until(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                log = self.log("supervisor")
                raise StackError(f"{otherwise}. The end of {_short(log)}:\n\n{_tail(log)}\n\nTry `make down`.")
            time.sleep(0.02)


def answers(port: int, path: str) -> bool:
    """Whether a GET is answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def fingerprint(sources: Iterable[Path]) -> str:
    """Differs when a file of these modules, packages and files has changed."""
    digest = hashlib.sha256()
    for source in sources:
        files = [source, source.with_suffix(".py"), *sorted(source.rglob("*"))]
        for file in files:
            if file.is_file() and file.suffix in _SOURCES:
                status = file.stat()
                digest.update(f"{file} {status.st_mtime_ns} {status.st_size}\n".encode())
    return digest.hexdigest()


def _tail(path: Path, lines: int = 30) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log yet)"


def _last_error(path: Path) -> str:
    """What the last line of level error says."""
    for line in reversed(_tail(path, 200).splitlines()):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if (said := json.loads(line))["level"] == "error":
                return str(said["event"])
    return f"see {_short(path)}"


def _short(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
