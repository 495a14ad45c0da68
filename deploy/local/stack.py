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
import http.client
import json
import shutil
import signal
import sys
import time
import urllib.parse
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from deploy.local import environment, kafka, postgres
from deploy.local.environment import HTTP, OUTSIDERS, SERVICES, WORKERS
from deploy.local.errors import StackError
from deploy.local.processes import read_json, write_json
from deploy.local.supervision import Supervision, answers, fingerprint
from deploy.local.supervisor import ROOT, Program

T = TypeVar("T")
DEFAULT = ROOT / ".local"
ALL = (*SERVICES, *WORKERS)
_LIBRARIES = DEFAULT / "kafka-libs"  # shared by every stack of this checkout
_PATIENCE = 90.0  # seconds for a part to become ready; a cold machine needs about 20


class Stack:
    """One stack in one directory. Any number of objects, in any process, may stand for the same stack."""

    def __init__(self, directory: Path = DEFAULT, say: Callable[[str], None] = print) -> None:
        self.directory = directory.resolve()
        self._say = say
        self._processes = Supervision(self.directory)
        self._kafka_links = self.directory / "kafka-links.json"

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
        if name in WORKERS:
            return environment.worker_env(name, self.ports, self.bootstrap_servers)
        raise StackError(f"There is no process {name!r} with an environment. Choose from: {', '.join(HTTP)}.")

    # Its life

    def prepare(self, kafka_links: Mapping[str, Sequence[int]] | None = None) -> None:
        """Choose the ports and make the secrets, before anything starts.

        From its next start on Kafka has a further listener for each link, a pair: the listener's port, and the port
        that it sends its clients to, where a proxy stands. What is given holds until something else is given.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self._prepare()
            if kafka_links is not None:
                write_json(self._kafka_links, kafka_links)

    def up(
        self,
        services: Iterable[str] = ALL,
        infra_only: bool = False,
        env: Mapping[str, Mapping[str, str]] | None = None,
        launcher: str | None = None,
    ) -> None:
        """Everything asked for is ready when this returns; what runs already, unchanged, is left alone.

        `env` adds variables per process; `launcher` is a module that runs the services' modules. Adds to what runs
        and restarts what has changed (its source, its environment); only `down` and `stop` take away. Raises
        StackError, which says what to do.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        with self._alone():
            self._prepare()
            with self._step("Kafka and Postgres"):
                infra = self._infrastructure()
                self._processes.run(infra)
                self._processes.wait((program.name for program in infra), self.ready, _PATIENCE)
                if any(program.name == "postgres" for program in infra):
                    passwords = {name: self.secrets[f"postgres_{name}"] for name in SERVICES}
                    _wait_for(postgres.create_databases(self._admin_url(), passwords))
            if not infra_only:
                self._up_services(list(services), env or {}, launcher)
        self._say(f"{'up':<42} {time.monotonic() - begin:5.1f} s")

    def _up_services(self, services: list[str], extra: Mapping[str, Mapping[str, str]], launcher: str | None) -> None:
        if unknown := set(services) - set(ALL):
            raise StackError(f"There is no service {', '.join(unknown)}. Choose from: {', '.join(ALL)}.")
        outsiders = [self._outsider(name, extra.get(name, {})) for name in OUTSIDERS]
        wanted = [self._service(name, extra.get(name, {}), launcher) for name in services]
        running = self._processes.wanted()
        changed = [program for program in wanted if program not in running or self.pid(program.name) is None]
        self._processes.run(outsiders)
        if changed:
            with self._step("topics and migrations"):
                jobs = {"topics": (["shared.admin", "topics"], {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers})}
                for program in changed:
                    if program.name in SERVICES:
                        jobs[f"migrate {program.name}"] = ([f"services.{program.name}", "migrate"], program.env)
                self._processes.jobs(jobs)
        with self._step(", ".join([*OUTSIDERS, *services])):
            self._processes.run(wanted)
            self._processes.wait([*OUTSIDERS, *services], self.ready, _PATIENCE)

    def down(self) -> None:
        """Nothing of the stack runs when this returns, nor of stacks inside its directory (the tests'); data stay."""
        if not self.directory.exists():
            return
        for other in self.directory.glob("*/stack.json"):
            Stack(other.parent, self._say).down()
        with self._alone():
            supervisor = self._processes.supervisor()
            if supervisor:
                with self._step("stopping"):
                    supervisor.end(signal.SIGTERM, grace=60)
            self._processes.forget()

    def stop(self, name: str) -> None:
        """Stop one process for good, until the next `up`: to run it under a debugger, or to test its absence."""
        with self._alone():
            self._processes.stop(name)

    def clean(self) -> None:
        """Stop and remove everything, data, secrets and the stacks inside its directory (the tests') included."""
        self.down()
        if self.directory == DEFAULT or (self.directory / "stack.json").exists():
            shutil.rmtree(self.directory, ignore_errors=True)

    # Its processes

    def pid(self, name: str) -> int | None:
        """The process's id; None when it does not run."""
        return self._processes.pid(name)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send the signal. After SIGKILL the process is gone when this returns; the supervisor starts a new one."""
        identity = self._processes.identity(name)
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
        path = "/health" if name in OUTSIDERS else "/health/ready"
        return self.pid(name) is not None and answers(self.ports[name], path)

    def wait_ready(self, name: str, seconds: float = _PATIENCE) -> None:
        """Returns when the process is ready; raises StackError with the end of its log if it does not get there."""
        self._processes.wait([name], self.ready, seconds)

    def status(self) -> dict[str, dict[str, Any]]:
        """Of every wanted process: pid, started, restarts, last_exit, ready, url."""
        state = self._processes.state()
        names = [program.name for program in self._processes.wanted()]
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
        return self._processes.log(name)

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
        running = self._processes.prepare()
        known: dict[str, int] = read_json(self.directory / "stack.json") or {}
        ports = environment.choose_ports(known, running)
        if ports != known:
            write_json(self.directory / "stack.json", ports)
        environment.write_clients(self.directory, self.secrets)

    def _infrastructure(self) -> list[Program]:
        """The local Kafka and Postgres, prepared side by side; without what the environment gives."""
        ports, password = self.ports, self.secrets["postgres"]
        links: dict[str, list[int]] | None = read_json(self._kafka_links)
        with ThreadPoolExecutor() as pool:
            jobs = [
                pool.submit(kafka.program, self.directory, _LIBRARIES, ports["kafka"], ports["kafka_controller"], links)
                for _ in range(not environment.given_bootstrap_servers())
            ] + [
                pool.submit(postgres.program, self.directory, ports["postgres"], password)
                for _ in range(not all(environment.given_database_url(name) for name in SERVICES))
            ]
            return [job.result() for job in jobs]

    def _outsider(self, name: str, extra: Mapping[str, str]) -> Program:
        module = f"deploy.local.{name}"
        sources = [ROOT / module.replace(".", "/"), ROOT / "deploy/local/sandbox"]
        if name == "issuer":  # it reads them when it starts
            sources += [self.directory / "clients.json"]
        return self._python(name, module, 1, extra, sources)

    def _service(self, name: str, extra: Mapping[str, str], launcher: str | None) -> Program:
        module = WORKERS.get(name, f"services.{name}")
        package = ROOT / "services" / module.split(".")[1]
        program = self._python(name, module, 2, extra, [ROOT / "shared", package])
        return replace(program, argv=[sys.executable, "-m", launcher, module]) if launcher else program

    def _python(self, name: str, module: str, tier: int, extra: Mapping[str, str], sources: list[Path]) -> Program:
        env = {**self.env(name), **extra}
        return Program(name, [sys.executable, "-m", module], env, tier, code=fingerprint(sources))

    def _admin_url(self) -> str:
        return self._local_url(postgres.ADMIN, self.secrets["postgres"])


def _wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a thread of its own, since the caller may be inside an event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
