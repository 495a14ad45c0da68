"""HTTP spoken to others: one client over aiohttp, with a limit on every call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson


class HttpError(Exception):
    """No answer came, or not in time; the request may have been carried out."""


@dataclass(frozen=True)
class Answer:
    """``asked`` is what was asked for, as in ``GET /v1/payments``."""

    asked: str
    status_code: int
    content: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status_code < 300

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """Raises ValueError."""
        return orjson.loads(self.content)


class HttpClient:
    """Speaks to the party at ``base_url``: at most ``connections`` at once, ``timeout`` seconds per call."""

    def __init__(
        self, base_url: str, *, timeout: float, headers: Mapping[str, str] | None = None, connections: int = 100
    ):
        self._base_url, self._headers, self._connections = base_url, headers or {}, connections
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None,
        data: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """The answer, whatever its status; redirects are answers too. Raises HttpError without one."""
        sent, body = dict(headers or {}), data
        if json is not None:
            sent["Content-Type"], body = "application/json", orjson.dumps(json)
        try:
            async with self._connected().request(
                method, self._base_url + path, params=params, data=body, headers=sent, allow_redirects=False
            ) as answer:
                return Answer(f"{method} {path}", answer.status, await answer.read())
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise HttpError(f"{method} {path}: {type(error).__name__} {error}") from error

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:  # it belongs to the loop that it is made in
            self._session = aiohttp.ClientSession(
                headers=self._headers, timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=20),
            )  # fmt: skip
        return self._session
