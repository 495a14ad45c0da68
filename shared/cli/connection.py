"""Where the platform is and how to get in: the local stack that was asked for, the environment, or this checkout's."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import httpx2
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.kafka import KafkaError

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
PAGE = 500
PATIENCE = 15.0  # seconds, for an answer over HTTP
COMMAND_PATIENCE = 600.0  # to redrive many dead letters takes its time
KAFKA_PATIENCE = 30.0
START = "; for a local stack, `make status` shows what runs and `make up` starts it"
SET = ": run `make up`, or set ISTHMUS_ORDER_URL, ISTHMUS_TOKEN and so on (see `isthmus --help`)"
KAFKA = "KAFKA_BOOTSTRAP_SERVERS"


class CliError(Exception):
    """What went wrong and what to do about it, in one line."""


class NotFoundError(CliError):
    """There is no such thing."""


class CliSettings(BaseSettings):
    """What the environment says; ``kafka`` is KAFKA_BOOTSTRAP_SERVERS, as for the services."""

    model_config = SettingsConfigDict(env_prefix="ISTHMUS_", extra="ignore")

    order_url: str | None = None
    inventory_url: str | None = None
    pricing_url: str | None = None
    customer_url: str | None = None
    notify_url: str | None = None
    kafka: str | None = Field(default=None, validation_alias=KAFKA)
    token: SecretStr | None = None
    auth_token_url: str | None = None
    client_id: str | None = None
    client_secret: SecretStr | None = None

    def url(self, service: str) -> str | None:
        url: str | None = getattr(self, f"{service}_url")
        return url.rstrip("/") if url else None

    def said(self) -> str | None:
        """The first variable that says anything of a platform; None where the environment is silent."""
        names = (name for name in type(self).model_fields if _plain(getattr(self, name)))
        return next((KAFKA if name == "kafka" else f"ISTHMUS_{name.upper()}" for name in names), None)


class Connection:
    """The services' HTTP APIs and Kafka, found when they are first needed; all of one platform.

    It is the local stack that was asked for, whatever the environment says; else the one of the environment, where that
    says anything; else the local stack of this checkout. So the token of one platform is never sent to another.
    """

    def __init__(self, stack: Path | None = None, settings: CliSettings | None = None):
        self._settings = settings or CliSettings()
        self._said = self._settings.said() if stack is None else None
        self._local = LocalStack(stack or ROOT / ".local")

    def url(self, service: str) -> str:
        if self._said is None:
            return self._local.url(service)
        return self._settings.url(service) or self._missing(f"ISTHMUS_{service.upper()}_URL")

    @property
    def bootstrap_servers(self) -> str:
        return self._local.bootstrap_servers if self._said is None else self._settings.kafka or self._missing(KAFKA)

    @cached_property
    def token(self) -> str:
        settings = self._settings
        if self._said is None:
            return self._local.token
        if settings.token and (token := settings.token.get_secret_value()):
            return token
        if settings.auth_token_url and settings.client_id and settings.client_secret:
            form = {
                "grant_type": "client_credentials", "client_id": settings.client_id,
                "client_secret": settings.client_secret.get_secret_value(),
            }  # fmt: skip
            return _token(settings.auth_token_url, form)
        return self._missing("ISTHMUS_TOKEN")

    def _missing(self, variable: str) -> NoReturn:
        raise CliError(f"{variable} is not set, but {self._said} is: set both; or, for a local stack, say --stack DIR")

    def get(self, service: str, path: str, **params: Any) -> Any:
        """The JSON that the service answers. Raises NotFoundError on 404, CliError on any other refusal."""
        return self._ask(service, "GET", path, params).json()

    def post(self, service: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """The JSON that the service answers to a command; ``key`` is its Idempotency-Key. Errors as for ``get``."""
        return self._ask(service, "POST", path, {}, json=body, key=key, patience=COMMAND_PATIENCE).json()

    def text(self, service: str, path: str, **params: Any) -> str:
        """The text that the service answers, as CSV."""
        return self._ask(service, "GET", path, params).text

    def entries(self, service: str, path: str, limit: int, **params: Any) -> Iterator[dict[str, Any]]:
        """A list that comes in pages, up to ``limit`` of what the service counts in its pages."""
        cursor: str | None = None
        while limit > 0:
            size = min(limit, PAGE)
            page = self.get(service, path, cursor=cursor, limit=size, **params)
            yield from page["items"]
            limit, cursor = limit - size, page["next"]
            if cursor is None:
                return

    @cached_property
    def _http(self) -> httpx2.Client:
        """One for all requests: each new one would read the certificates of this machine again."""
        return httpx2.Client()

    def _ask(
        self, service: str, method: str, path: str, params: dict[str, Any], *, json: Any = None,
        key: str | None = None, patience: float = PATIENCE,
    ) -> httpx2.Response:  # fmt: skip
        url = self.url(service)
        asked = {name: value for name, value in params.items() if value is not None}
        try:
            headers = {"Authorization": f"Bearer {self.token}", **({"Idempotency-Key": key} if key else {})}
            answer = self._http.request(method, url + path, params=asked, headers=headers, json=json, timeout=patience)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise CliError(f"the {service} service does not answer at {url} ({type(error).__name__}){START}") from error
        if not answer.is_success:
            problem = _reason(answer)
            raise (NotFoundError if answer.status_code == 404 else CliError)(f"{service}: {problem}")
        return answer

    def kafka(self, look: Callable[[str], Coroutine[Any, Any, T]], patience: float = KAFKA_PATIENCE) -> T:
        """What ``look`` finds in Kafka, given its address. Raises CliError where Kafka does not answer in time."""
        address = self.bootstrap_servers
        try:
            return asyncio.run(asyncio.wait_for(look(address), patience))
        except (KafkaError, OSError, TimeoutError) as error:
            raise CliError(f"Kafka does not answer at {address} ({type(error).__name__}){START}") from error


class LocalStack:
    """A stack of ``python -m deploy.local``, asked by its own commands."""

    def __init__(self, directory: Path):
        self._directory = directory.resolve()
        self._known: dict[str, dict[str, str]] = {}

    def url(self, service: str) -> str:
        told = self._environment(service)
        return f"http://{told['ISTHMUS_HTTP_HOST']}:{told['ISTHMUS_HTTP_PORT']}"

    @property
    def bootstrap_servers(self) -> str:
        return self._environment("order")[KAFKA]

    @cached_property
    def token(self) -> str:
        return self._run("token").strip()

    def _environment(self, service: str) -> dict[str, str]:
        if service not in self._known:
            self._known[service] = exports(self._run("env", service))
        return self._known[service]

    def _run(self, *arguments: str) -> str:
        if not self._directory.is_dir() or not (ROOT / "deploy" / "local").is_dir():
            raise CliError(f"no local stack in {self._directory}{SET}")
        command = [sys.executable, "-m", "deploy.local", "--directory", str(self._directory), *arguments]
        # Without the caller's Kafka, which it would take for its own.
        own = {name: value for name, value in os.environ.items() if name != KAFKA}
        done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CliError(" ".join(done.stderr.split()) or f"{shlex.join(command)} ended with {done.returncode}")
        return done.stdout


def exports(script: str) -> dict[str, str]:
    """The variables that lines such as ``export NAME='a value'`` set."""
    words = [shlex.split(line) for line in script.splitlines() if line.startswith("export ")]
    return dict(pair.split("=", 1) for _, pair in words)


def _plain(value: str | SecretStr | None) -> str | None:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _token(url: str, form: dict[str, str]) -> str:
    try:
        answer = httpx2.post(url, data=form, timeout=PATIENCE)
        if answer.is_success:
            return str(answer.json()["access_token"])
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise CliError(f"no token from {url}: {type(error).__name__} {error}") from error
    raise CliError(f"no token from {url}: {_reason(answer)}")


def _reason(answer: httpx2.Response) -> str:
    """Why the answer is a no, from its problem document (RFC 9457) where it is one."""
    try:
        body = answer.json()
        said = [str(body[name]) for name in ("title", "detail") if body.get(name)]
        said += [f"{one['field']}: {one['message']}" for one in body.get("errors", [])]
    except (ValueError, AttributeError, KeyError, TypeError):
        said = [answer.text[:200]]
    return " ".join(f"{answer.status_code} {'; '.join(said)}".split())
