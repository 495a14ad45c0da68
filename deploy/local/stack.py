"""The whole platform on this machine, without containers: what `make up` and the flow tests drive.

    stack = Stack(Path(".local/test"))
    stack.up()                       # everything, or returns at once when it runs already
    stack.url("order"), stack.database_url("order"), stack.bootstrap_servers
    stack.kill("order", signal.SIGKILL); stack.wait_ready("order")
    stack.down()                     # the data stay; stack.clean() removes them

Every method is synchronous and may be called inside a running event loop, which it then blocks.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from deploy.local import environment, kafka, postgres
from deploy.local.environment import HTTP, OUTSIDERS, SERVICES
from deploy.local.errors import StackError
from deploy.local.processes import Identity, read_json, write_json
from deploy.local.supervisor import ROOT, Program, end_leftovers, read_wanted, try_lock, write_wanted

T = TypeVar("T")
DEFAULT = ROOT / ".local"
ALL = SERVICES
_LIBRARIES = DEFAULT / "kafka-libs"  # shared by every stack of this checkout
_PATIENCE = 90.0  # seconds for a part to become ready; a cold machine needs about 20
_TOO_MANY_RESTARTS = 3  # while waiting: it will not recover by itself


class Stack:
    """One stack in one directory. Any number of objects, in any process, may stand for the same stack."""

    def __init__(self, directory: Path = DEFAULT, say: Callable[[str], None] = print) -> None:
        self.directory = directory.resolve()
        self._say = say

    # What it is made of

    @property
    def secrets(self) -> dict[str, str]:
        self.directory.mkdir(parents=True, exist_ok=True)
        return environment.load_secrets(self.directory)

    @property
    def ports(self) -> dict[str, int]:
        ports: dict[str, int] | None = read_json(self.directory / "stack.json")
        if ports is None:
            raise StackError("This stack has never been started. Run `make up` first.")
        return ports

    @property
    def bootstrap_servers(self) -> str:
        return environment.given_bootstrap_servers() or f"127.0.0.1:{self.ports['kafka']}"

    def database_url(self, service: str) -> str:
        return environment.given_database_url(service) or self._local_url(service, self.secrets[f"postgres_{service}"])

    def _local_url(self, name: str, password: str) -> str:
        return f"postgresql://{name}:{password}@127.0.0.1:{self.ports['postgres']}/{name}"

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def env(self, name: str) -> dict[str, str]:
        """What the process is started with, beside the environment of the caller of `up`."""
        if name in OUTSIDERS:
            return environment.outsider_env(name, self.directory, self.ports, self.secrets)
        if name in SERVICES:
            return environment.service_env(
                name, self.ports, self.secrets, self.bootstrap_servers, self.database_url(name)
            )
        raise StackError(f"There is no process {name!r} with an environment. Choose from: {', '.join(HTTP)}.")

    # Its life

    def up(
        self,
        services: Iterable[str] = ALL,
        infra_only: bool = False,
        env: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Everything asked for is ready when this returns; what runs already, unchanged, is left alone.

        `env` adds variables per process. Adds to what runs and restarts what has changed (its source, its
        environment); only `down` and `stop` take away. Raises StackError, which says what to do.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        with self._alone():
            self._prepare()
            with self._step("Kafka and Postgres"):
                infra = self._infrastructure()
                self._run(infra)
                self._wait(program.name for program in infra)
                if any(program.name == "postgres" for program in infra):
                    passwords = {name: self.secrets[f"postgres_{name}"] for name in SERVICES}
                    _wait_for(postgres.create_databases(self._admin_url(), passwords))
            if not infra_only:
                self._up_services(list(services), env or {})
        self._say(f"{'up':<42} {time.monotonic() - begin:5.1f} s")

    def _up_services(self, services: list[str], extra: Mapping[str, Mapping[str, str]]) -> None:
        if unknown := set(services) - set(SERVICES):
            raise StackError(f"There is no service {', '.join(unknown)}. Choose from: {', '.join(SERVICES)}.")
        outsiders = [self._python(name, f"deploy.local.{name}", 1, extra.get(name, {})) for name in OUTSIDERS]
        wanted = [self._python(name, f"services.{name}", 2, extra.get(name, {})) for name in services]
        running = read_wanted(self.directory)
        changed = [program for program in wanted if program not in running or self.pid(program.name) is None]
        self._run(outsiders)
        if changed:
            with self._step("topics and migrations"):
                jobs = {"topics": (["shared.admin", "topics"], {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers})}
                for program in changed:
                    jobs[f"migrate {program.name}"] = ([f"services.{program.name}", "migrate"], program.env)
                self._jobs(jobs)
        with self._step(", ".join([*OUTSIDERS, *services])):
            self._run(wanted)
            self._wait([*OUTSIDERS, *services])

    def down(self) -> None:
        """Nothing of the stack runs when this returns, nor of stacks inside its directory (the tests'); data stay."""
        if not self.directory.exists():
            return
        for other in self.directory.glob("*/stack.json"):
            Stack(other.parent, self._say).down()
        with self._alone():
            supervisor = self._supervisor()
            if supervisor:
                with self._step("stopping"):
                    supervisor.end(signal.SIGTERM, grace=60)
            end_leftovers(self.directory)
            for name in ("wanted.json", "state.json", "supervisor.json"):
                (self.directory / name).unlink(missing_ok=True)

    def stop(self, name: str) -> None:
        """Stop one process for good, until the next `up`: to run it under a debugger, or to test its absence."""
        with self._alone():
            self._signal_supervisor([program for program in read_wanted(self.directory) if program.name != name])
            self._until(lambda: name not in self._state(), 30, f"{name} did not stop")

    def clean(self) -> None:
        """Stop and remove everything, data, secrets and the stacks inside its directory (the tests') included."""
        self.down()
        if self.directory == DEFAULT or (self.directory / "stack.json").exists():
            shutil.rmtree(self.directory, ignore_errors=True)

    # Its processes

    def pid(self, name: str) -> int | None:
        """The process's id; None when it does not run."""
        identity = self._identity(name)
        return identity.pid if identity and identity.alive() else None

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send the signal. After SIGKILL the process is gone when this returns; the supervisor starts a new one."""
        identity = self._identity(name)
        if identity is None or not identity.send(number):
            raise StackError(f"{name} does not run, so it cannot be signalled. See `make status`.")
        if number == signal.SIGKILL:
            identity.wait(10)

    def ready(self, name: str) -> bool:
        """Whether it would serve a request now."""
        if name in ("kafka", "postgres") and self.pid(name) is None:
            return False
        if name == "kafka":
            return _wait_for(kafka.ready(self.bootstrap_servers))
        if name == "postgres":
            return _wait_for(postgres.ready(self._admin_url()))
        return self.pid(name) is not None and self._get(name, "/health" if name in OUTSIDERS else "/health/ready")

    def wait_ready(self, name: str, seconds: float = _PATIENCE) -> None:
        """Returns when the process is ready; raises StackError with the end of its log if it does not get there."""
        self._wait([name], seconds)

    def status(self) -> dict[str, dict[str, Any]]:
        """Of every wanted process: pid, started, restarts, last_exit, ready, url."""
        state = self._state()
        names = [program.name for program in read_wanted(self.directory)]
        return {
            name: {
                "started": None,
                "restarts": 0,
                "last_exit": None,
                **state.get(name, {}),
                "pid": self.pid(name),
                "ready": self.ready(name),
                "url": self.url(name) if name in HTTP else f"127.0.0.1:{self.ports[name]}",
            }
            for name in names
        }

    def log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def token(self, client: str = "demo") -> str:
        """A bearer token of one of the local clients, by the client credentials grant."""
        secret = self.secrets.get(f"client_{client}")
        if secret is None:
            raise StackError(f"There is no client {client!r}. Choose from: {', '.join(environment.CLIENTS)}.")
        form = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["issuer"], timeout=5)
        try:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", "/token", urllib.parse.urlencode(form), headers)
            answer = connection.getresponse()
            body = answer.read().decode()
        except OSError as error:
            raise StackError(f"The issuer does not answer ({error}). Run `make up` first.") from None
        finally:
            connection.close()
        if answer.status != 200:
            raise StackError(f"The issuer refused a token: {answer.status} {body}\nSee `make logs`.")
        return str(json.loads(body)["access_token"])

    # How

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        """One `up` or `down` of a stack at a time, also between processes (parallel test workers)."""
        with open(self.directory / "stack.lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _step(self, title: str) -> Generator[None]:
        begin = time.monotonic()
        yield
        self._say(f"{title:<42} {time.monotonic() - begin:5.1f} s")

    def _prepare(self) -> None:
        (self.directory / "logs").mkdir(exist_ok=True)
        known: dict[str, int] = read_json(self.directory / "stack.json") or {}
        running = [name for name in self._state() if self.pid(name)]
        if not self._supervisor() and running:
            end_leftovers(self.directory)
            running = []
        ports = environment.choose_ports(known, running)
        if ports != known:
            write_json(self.directory / "stack.json", ports)
        environment.write_clients(self.directory, self.secrets)

    def _infrastructure(self) -> list[Program]:
        """The local Kafka and Postgres, prepared side by side; without what the environment gives."""
        ports, password = self.ports, self.secrets["postgres"]
        with ThreadPoolExecutor() as pool:
            jobs = [
                pool.submit(kafka.program, self.directory, _LIBRARIES, ports["kafka"], ports["kafka_controller"])
                for _ in range(not environment.given_bootstrap_servers())
            ] + [
                pool.submit(postgres.program, self.directory, ports["postgres"], password)
                for _ in range(not all(environment.given_database_url(name) for name in SERVICES))
            ]
            return [job.result() for job in jobs]

    def _python(self, name: str, module: str, tier: int, extra: Mapping[str, str]) -> Program:
        sources = [ROOT / "shared", ROOT / module.replace(".", "/")]
        return Program(
            name, [sys.executable, "-m", module], {**self.env(name), **extra}, tier, code=_fingerprint(sources)
        )

    def _run(self, programs: list[Program]) -> None:
        """Have the supervisor run these too, in place of older ones of the same name."""
        wanted = read_wanted(self.directory) if self._supervisor() else []
        names = {program.name for program in programs}
        merged = sorted([p for p in wanted if p.name not in names] + programs, key=lambda p: p.tier)
        if self._supervisor() and all(program in wanted for program in programs):
            return
        self._signal_supervisor(merged)

    def _signal_supervisor(self, programs: list[Program]) -> None:
        write_wanted(self.directory, programs)
        supervisor = self._supervisor()
        if supervisor is None:
            (self.directory / "logs").mkdir(exist_ok=True)
            with self.log("supervisor").open("ab") as log:
                command = [sys.executable, "-m", "deploy.local.supervisor", str(self.directory)]
                subprocess.run(
                    command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=True
                )
            self._until(lambda: self._supervisor() is not None, 60, "The supervisor did not start")
        else:
            supervisor.send(signal.SIGHUP)
        # It has read the file when its state names exactly these processes, started from these descriptions.
        self._until(lambda: self._acknowledged(programs), 60, "The supervisor does not answer")

    def _acknowledged(self, programs: list[Program]) -> bool:
        state = self._state()
        return set(state) == {program.name for program in programs} and all(
            state[program.name].get("program") == program.digest() for program in programs
        )

    def _supervisor(self) -> Identity | None:
        """The live supervisor. Its lock decides: it is let go by the kernel however the supervisor ends."""
        lock = try_lock(self.directory)
        if lock is not None:
            lock.close()
            return None
        known = read_json(self.directory / "supervisor.json")
        return Identity(**known) if known else None

    def _state(self) -> dict[str, dict[str, Any]]:
        return read_json(self.directory / "state.json") or {}

    def _identity(self, name: str) -> Identity | None:
        entry = self._state().get(name, {})
        return Identity(entry["pid"], entry["born"]) if entry.get("pid") and entry.get("born") else None

    def _admin_url(self) -> str:
        return self._local_url(postgres.ADMIN, self.secrets["postgres"])

    def _get(self, name: str, path: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _wait(self, names: Iterable[str], seconds: float = _PATIENCE) -> None:
        waiting = list(names)
        until = time.monotonic() + seconds
        before = {name: self._state().get(name, {}).get("restarts", 0) for name in waiting}
        while waiting := [name for name in waiting if not self.ready(name)]:
            for name in waiting:
                entry = self._state().get(name, {})
                if entry.get("restarts", 0) - before[name] >= _TOO_MANY_RESTARTS:
                    raise self._failure(name, f"{name} keeps ending (last exit code {entry.get('last_exit')})")
                if time.monotonic() > until:
                    raise self._failure(name, f"{name} was not ready in {seconds:.0f} s")
            time.sleep(0.05)

    def _failure(self, name: str, what: str) -> StackError:
        return StackError(
            f"{what}. The end of {_short(self.log(name))}:\n\n{_tail(self.log(name))}\n\n"
            "It is tried again in the background. After a change run `make up` again; `make down` stops everything, "
            "`make clean` also removes the local data."
        )

    def _jobs(self, jobs: Mapping[str, tuple[list[str], Mapping[str, str]]]) -> None:
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

    def _until(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                log = self.log("supervisor")
                raise StackError(f"{otherwise}. The end of {_short(log)}:\n\n{_tail(log)}\n\nTry `make down`.")
            time.sleep(0.02)


def _wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a thread of its own, since the caller may be inside an event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def _fingerprint(sources: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        files = [source.with_suffix(".py"), *sorted(source.rglob("*"))]
        for file in files:
            if file.is_file() and file.suffix in (".py", ".sql", ".html", ".json", ".toml"):
                status = file.stat()
                digest.update(f"{file} {status.st_mtime_ns} {status.st_size}\n".encode())
    return digest.hexdigest()


def _tail(path: Path, lines: int = 30) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log yet)"


def _short(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
