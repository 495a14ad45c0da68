"""Adapter of the carrier whose sandbox runs in deploy/local/carrier: HTTP, API key, Standard Webhooks."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from services.order.shipping.carrier import CarrierRefusedError, CarrierUnavailableError, Recipient
from services.order.shipping.decisions import Booking, ParcelReport
from services.order.state import Parcel

M = TypeVar("M", bound=BaseModel)

NAME = "sandbox"
# What the carrier calls what we call otherwise; a status not listed here changes nothing.
STATUS = {
    "booked": "booked", "collected": "shipped", "in_transit": "shipped", "delivered": "delivered", "lost": "lost",
    "cancelled": "cancelled",
}  # fmt: skip


class _Price(BaseModel):
    amount: Decimal
    currency: str


class _Parcel(BaseModel):
    """The part of the carrier's parcel that is kept: it also holds the recipient and who signed, which are not."""

    id: str
    reference: str
    status: str
    tracking_number: str
    promised_at: datetime | None = None
    price: _Price
    at: datetime | None = None
    updated_at: datetime | None = None
    created_at: datetime

    def booking(self) -> Booking:
        return Booking(
            NAME, self.id, self.tracking_number, self.promised_at, self.price.amount, self.price.currency
        )  # fmt: skip

    def report(self) -> ParcelReport:
        at = self.at or self.updated_at or self.created_at
        return ParcelReport(STATUS.get(self.status, "booked"), at, self.promised_at)


class _Found(BaseModel):
    data: list[_Parcel]


class _Notice(BaseModel):
    type: str
    data: dict[str, Any]


class SandboxCarrier:
    """Speaks to the carrier at ``url``. ``timeout`` in seconds per call."""

    def __init__(self, url: str, api_key: str, webhook_secret: str, timeout: float):
        self._webhook = Webhook(webhook_secret)
        self._client = httpx2.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=timeout,
            limits=httpx2.Limits(max_connections=100, max_keepalive_connections=50),
        )  # fmt: skip

    async def close(self) -> None:
        await self._client.aclose()

    async def book(self, reference: str, parcel: Parcel, recipient: Recipient) -> Booking:
        body = {
            "reference": reference, "from": parcel.warehouse, "recipient": recipient.model_dump(exclude_none=True),
            "units": sum(parcel.items.values()),
        }  # fmt: skip
        answer = await self._call("POST", "/v1/parcels", json=body, headers={"Idempotency-Key": reference})
        if answer.status_code == 422 and _title(answer) == "Address not served":
            raise CarrierRefusedError("address_not_served")
        return _parcel(answer).booking()  # any other refusal is a mistake of ours, to be looked into and mended

    async def look_up(self, reference: str) -> tuple[Booking, ParcelReport] | None:
        answer = await self._call("GET", "/v1/parcels", params={"reference": reference})
        _check(answer)
        found = _read(_Found, answer).data
        return (found[0].booking(), found[0].report()) if found else None

    async def recall(self, carrier_reference: str) -> bool:
        answer = await self._call("POST", f"/v1/parcels/{carrier_reference}/cancel")
        if answer.status_code == 409:
            return False
        _check(answer)
        return True

    def notice(self, headers: dict[str, str], body: bytes) -> tuple[str, Booking, ParcelReport] | None:
        try:
            self._webhook.verify(body, headers)
            notice = _Notice.model_validate_json(body)
            if not notice.type.startswith("parcel."):
                return None
            parcel = _Parcel.model_validate(notice.data)
            return parcel.reference, parcel.booking(), parcel.report()
        except (WebhookVerificationError, ValidationError) as error:
            raise ValueError("not a notice of the carrier") from error  # without its content, which is personal

    async def _call(self, method: str, path: str, **request: Any) -> httpx2.Response:
        try:
            answer = await self._client.request(method, path, **request)
        except httpx2.HTTPError as error:
            raise CarrierUnavailableError(f"{method} {path}: {type(error).__name__}") from error
        if answer.status_code >= 500 or answer.status_code in (401, 403, 408, 425, 429):
            raise CarrierUnavailableError(f"{method} {path}: {answer.status_code}")
        return answer


def _check(answer: httpx2.Response) -> None:
    if not answer.is_success:
        raise CarrierUnavailableError(f"{answer.request.method} {answer.request.url.path}: {answer.status_code}")


def _parcel(answer: httpx2.Response) -> _Parcel:
    _check(answer)
    return _read(_Parcel, answer)


def _read(model: type[M], answer: httpx2.Response) -> M:
    try:
        return model.model_validate_json(answer.content)
    except ValidationError:  # not shown: it may hold what is personal
        raise CarrierUnavailableError(f"{answer.request.url.path}: not an answer of the carrier") from None


def _title(answer: httpx2.Response) -> str:
    try:
        return str(answer.json().get("title", ""))
    except (ValueError, AttributeError):
        return ""
