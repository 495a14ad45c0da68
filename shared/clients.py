"""Another service's HTTP API, called with a token of our own (OAuth 2.0 client credentials, RFC 6749 section 4.4)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pydantic import SecretStr

from shared.http import Answer, HttpClient, HttpError
from shared.settings import Settings
from shared.tracing import current_trace

EARLY_SECONDS = 30.0  # a token is replaced so long before its end


class UnavailableError(Exception):
    """No clear answer came: the other service, or the issuer, is away. The same question may be asked again."""


class UnansweredError(UnavailableError):
    """No answer came at all: it was not the question."""


class CallerSettings(Settings):
    """Settings of a service that calls others."""

    auth_token_url: str
    client_id: str
    client_secret: SecretStr
    customer_url: str


class ServiceClient:
    """Asks the service at ``base_url``; fetches a token when it needs one. ``timeout`` in seconds per call."""

    def __init__(self, base_url: str, settings: CallerSettings, *, timeout: float = 5.0):
        self._settings = settings
        self._http = HttpClient(base_url, timeout=timeout)
        self._issuer = HttpClient(settings.auth_token_url, timeout=timeout)
        self._token = ""
        self._until = 0.0
        self._fetching = asyncio.Lock()

    async def close(self) -> None:
        await self._http.close()
        await self._issuer.close()

    async def get(self, path: str, **params: str) -> Answer:
        """The answer: a success, or the service's own 404 for what is not there. Raises UnavailableError otherwise."""
        return await self._ask("GET", path, params=params)

    async def post(self, path: str, body: Any) -> Answer:
        """The answer to a question too long for an address; as ``get``."""
        return await self._ask("POST", path, json=body)

    async def _ask(self, method: str, path: str, **request: Any) -> Answer:
        answer = await self._send(method, path, **request)
        if answer.status_code == 401:  # the issuer has new keys, or took the token back
            self._until = 0.0
            answer = await self._send(method, path, **request)
        if answer.is_success or (answer.status_code == 404 and "urn:isthmus:problem" in answer.text):
            return answer
        raise UnavailableError(f"{method} {path}: {answer.status_code}")  # not its text, which may be personal

    async def _send(self, method: str, path: str, **request: Any) -> Answer:
        headers = {"Authorization": f"Bearer {await self._bearer()}"}
        if (trace := current_trace.get()) is not None:
            headers["traceparent"] = str(trace)
        try:
            return await self._http.request(method, path, headers=headers, **request)
        except HttpError as error:
            raise UnansweredError(str(error)) from error

    async def _bearer(self) -> str:
        if time.monotonic() >= self._until:
            async with self._fetching:
                if time.monotonic() >= self._until:
                    await self._fetch()
        return self._token

    async def _fetch(self) -> None:
        form = {
            "grant_type": "client_credentials", "client_id": self._settings.client_id,
            "client_secret": self._settings.client_secret.get_secret_value(),
        }  # fmt: skip
        try:
            answer = await self._issuer.request("POST", "", data=form)
            if not answer.is_success:
                raise ValueError(f"status {answer.status_code}")
            said: dict[str, Any] = answer.json()
            self._token = str(said["access_token"])
            self._until = time.monotonic() + max(1.0, float(said.get("expires_in", 60)) - EARLY_SECONDS)
        except (HttpError, ValueError, KeyError, TypeError) as error:
            raise UnansweredError(f"no token from the issuer: {type(error).__name__} {error}") from error
