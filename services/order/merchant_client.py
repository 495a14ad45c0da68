"""The HTTP of an outside party that knows us by an API key, and signs its notices (Standard Webhooks)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from standardwebhooks import Webhook

from shared.http import Answer, HttpClient, HttpError


class _Notice(BaseModel):
    type: str
    data: dict[str, Any]


class MerchantClient:
    """Speaks to the party at ``url``, ``timeout`` seconds per call. Without a clear answer it raises ``unknown``."""

    def __init__(self, url: str, api_key: str, webhook_secret: str, timeout: float, unknown: type[Exception]):
        self._unknown = unknown
        self._webhook = Webhook(webhook_secret)
        self._http = HttpClient(url, headers={"Authorization": f"Bearer {api_key}"}, timeout=timeout)

    async def close(self) -> None:
        await self._http.close()

    async def call(self, method: str, path: str, *, key: str | None = None, **request: Any) -> Answer:
        """The answer: a success, or a no that means something to the caller; ``key`` is the idempotency key."""
        headers = {"Idempotency-Key": key} if key else {}
        try:
            answer = await self._http.request(method, path, headers=headers, **request)
        except HttpError as error:
            raise self._unknown(str(error)) from error
        if answer.status_code >= 500 or answer.status_code in (401, 403, 408, 425, 429):
            raise self._unknown(f"{method} {path}: {answer.status_code}")
        return answer

    def check(self, answer: Answer) -> None:
        """Raise ``unknown`` unless the answer is a success."""
        if not answer.is_success:
            raise self._unknown(f"{answer.asked}: {answer.status_code}")

    def notice(self, headers: dict[str, str], body: bytes, kind: str) -> dict[str, Any] | None:
        """What a notice of this kind speaks of, None for another kind; raises the libraries' errors on a forgery."""
        self._webhook.verify(body, headers)
        notice = _Notice.model_validate_json(body)
        return notice.data if notice.type.startswith(f"{kind}.") else None
