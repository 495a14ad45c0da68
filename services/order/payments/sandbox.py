"""Adapter of the payment provider whose sandbox runs in deploy/local/payments: HTTP, API key, Standard Webhooks."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx2
from pydantic import BaseModel, ValidationError
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from services.order.payments.decisions import PaymentReport
from services.order.payments.provider import UnknownOutcomeError


class _Payment(BaseModel):
    id: str
    status: str
    amount: Decimal
    reference: str
    decline_code: str | None = None
    redirect_url: str | None = None
    fee: Decimal = Decimal(0)

    def report(self) -> PaymentReport:
        reason = (self.decline_code or "").replace("\0", "")[:200]
        return PaymentReport(self.status, self.amount, self.id, reason, self.redirect_url, self.fee)


class _Notice(BaseModel):
    type: str
    data: dict[str, Any]


class SandboxProvider:
    """Speaks to the provider at ``url``. ``timeout`` in seconds per call."""

    def __init__(self, url: str, api_key: str, webhook_secret: str, timeout: float):
        self._webhook = Webhook(webhook_secret)
        self._client = httpx2.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=timeout,
            limits=httpx2.Limits(max_connections=100, max_keepalive_connections=50),
        )  # fmt: skip

    async def close(self) -> None:
        await self._client.aclose()

    async def charge(self, payment_id: UUID, token: str, amount: Decimal, currency: str) -> PaymentReport:
        body = {"amount": f"{amount:f}", "currency": currency, "token": token, "reference": str(payment_id)}
        answer = await self._call("POST", "/v1/payments", json=body, key=payment_id)
        if answer.status_code in (400, 402, 422):  # the request itself is refused: asking again would not help
            return PaymentReport("declined", amount, reason=_title(answer))
        return _payment(answer).report()

    async def look_up(self, payment_id: UUID) -> PaymentReport | None:
        answer = await self._call("GET", "/v1/payments", params={"reference": str(payment_id)})
        _check(answer)
        found = answer.json()["data"]
        return _Payment.model_validate(found[0]).report() if found else None

    async def void(self, payment_id: UUID, provider_reference: str) -> PaymentReport:
        answer = await self._call("POST", f"/v1/payments/{provider_reference}/void")
        if answer.status_code == 409:  # too late: what it became is the answer
            answer = await self._call("GET", f"/v1/payments/{provider_reference}")
        return _payment(answer).report()

    async def refund(self, refund_id: UUID, key: UUID, provider_reference: str, amount: Decimal) -> bool:
        body = {"amount": f"{amount:f}", "reference": str(refund_id)}
        answer = await self._call("POST", f"/v1/payments/{provider_reference}/refunds", json=body, key=key)
        _check(answer)
        return answer.json()["status"] == "succeeded"

    def webhook(self, headers: dict[str, str], body: bytes) -> tuple[UUID, PaymentReport] | None:
        try:
            self._webhook.verify(body, headers)
            notice = _Notice.model_validate_json(body)
            if not notice.type.startswith("payment."):
                return None
            payment = _Payment.model_validate(notice.data)
            return UUID(payment.reference), payment.report()
        except (WebhookVerificationError, ValidationError) as error:
            raise ValueError(f"not a notice of the provider: {error}") from error

    async def _call(self, method: str, path: str, *, key: UUID | None = None, **request: Any) -> httpx2.Response:
        headers = {"Idempotency-Key": str(key)} if key else {}
        try:
            answer = await self._client.request(method, path, headers=headers, **request)
        except httpx2.HTTPError as error:
            raise UnknownOutcomeError(f"{method} {path}: {type(error).__name__} {error}") from error
        if answer.status_code >= 500 or answer.status_code in (401, 403, 408, 425, 429):
            raise UnknownOutcomeError(f"{method} {path}: {answer.status_code}")
        return answer


def _title(answer: httpx2.Response) -> str:
    try:
        return str(answer.json().get("title", "refused"))
    except (ValueError, AttributeError) as error:
        raise UnknownOutcomeError(f"{answer.request.url.path}: {answer.status_code} without a reason") from error


def _check(answer: httpx2.Response) -> None:
    if not answer.is_success:
        raise UnknownOutcomeError(f"{answer.request.method} {answer.request.url.path}: {answer.status_code}")


def _payment(answer: httpx2.Response) -> _Payment:
    _check(answer)
    return _Payment.model_validate_json(answer.content)
