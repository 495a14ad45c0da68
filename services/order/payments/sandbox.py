"""Adapter of the payment provider whose sandbox runs in deploy/local/payments: HTTP, API key, Standard Webhooks."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from pydantic import BaseModel, ValidationError
from standardwebhooks.webhooks import WebhookVerificationError

from services.order.merchant_client import MerchantClient
from services.order.payments.decisions import PaymentReport
from services.order.payments.provider import UnknownOutcomeError
from shared.http import Answer

PAGE = 200


class _Payment(BaseModel):
    id: str
    status: str
    amount: Decimal
    reference: str
    decline_code: str | None = None
    redirect_url: str | None = None
    fee: Decimal = Decimal(0)
    refunded: Decimal = Decimal(0)

    def report(self) -> PaymentReport:
        reason = (self.decline_code or "").replace("\0", "")[:200]
        return PaymentReport(self.status, self.amount, self.id, reason, self.redirect_url, self.fee, self.refunded)


class _Page(BaseModel):
    data: list[_Payment]
    next_cursor: str | None = None


class SandboxProvider:
    """Speaks to the provider at ``url``. ``timeout`` in seconds per call."""

    def __init__(self, url: str, api_key: str, webhook_secret: str, timeout: float):
        self._client = MerchantClient(url, api_key, webhook_secret, timeout, UnknownOutcomeError)

    async def close(self) -> None:
        await self._client.close()

    async def charge(self, payment_id: UUID, token: str, amount: Decimal, currency: str) -> PaymentReport:
        body = {"amount": f"{amount:f}", "currency": currency, "token": token, "reference": str(payment_id)}
        answer = await self._client.call("POST", "/v1/payments", json=body, key=str(payment_id))
        if answer.status_code in (400, 402, 422):  # the request itself is refused: asking again would not help
            return PaymentReport("declined", amount, reason=_title(answer))
        return self._payment(answer).report()

    async def look_up(self, payment_id: UUID) -> PaymentReport | None:
        answer = await self._client.call("GET", "/v1/payments", params={"reference": str(payment_id)})
        self._client.check(answer)
        found = answer.json()["data"]
        return _Payment.model_validate(found[0]).report() if found else None

    async def payments_since(self, cursor: str | None) -> tuple[list[tuple[str, PaymentReport]], str | None]:
        params = {"limit": PAGE} | ({"cursor": cursor} if cursor else {})
        answer = await self._client.call("GET", "/v1/payments", params=params)
        self._client.check(answer)
        page = _Page.model_validate_json(answer.content)
        return [(payment.reference, payment.report()) for payment in page.data], page.next_cursor

    async def void(self, payment_id: UUID, provider_reference: str) -> PaymentReport:
        answer = await self._client.call("POST", f"/v1/payments/{provider_reference}/void")
        if answer.status_code == 409:  # too late: what it became is the answer
            answer = await self._client.call("GET", f"/v1/payments/{provider_reference}")
        return self._payment(answer).report()

    async def refund(self, refund_id: UUID, key: UUID, provider_reference: str, amount: Decimal) -> bool:
        body = {"amount": f"{amount:f}", "reference": str(refund_id)}
        answer = await self._client.call("POST", f"/v1/payments/{provider_reference}/refunds", json=body, key=str(key))
        self._client.check(answer)
        return answer.json()["status"] == "succeeded"

    def webhook(self, headers: dict[str, str], body: bytes) -> tuple[UUID, PaymentReport] | None:
        try:
            told = self._client.notice(headers, body, "payment")
            if told is None:
                return None
            payment = _Payment.model_validate(told)
            return UUID(payment.reference), payment.report()
        except (WebhookVerificationError, ValidationError) as error:
            raise ValueError(f"not a notice of the provider: {error}") from error

    def _payment(self, answer: Answer) -> _Payment:
        self._client.check(answer)
        return _Payment.model_validate_json(answer.content)


def _title(answer: Answer) -> str:
    try:
        return str(answer.json().get("title", "refused"))
    except (ValueError, AttributeError) as error:
        raise UnknownOutcomeError(f"{answer.asked}: {answer.status_code} without a reason") from error
