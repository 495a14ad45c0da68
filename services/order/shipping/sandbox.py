"""Adapter of the carrier whose sandbox runs in deploy/local/carrier: HTTP, API key, Standard Webhooks."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from standardwebhooks.webhooks import WebhookVerificationError

from services.order.merchant_client import MerchantClient
from services.order.shipping.carrier import CarrierRefusedError, CarrierUnavailableError, Recipient
from services.order.shipping.decisions import Booking, ParcelReport
from services.order.state import Parcel
from shared.http import Answer

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


class SandboxCarrier:
    """Speaks to the carrier at ``url``. ``timeout`` in seconds per call."""

    def __init__(self, url: str, api_key: str, webhook_secret: str, timeout: float):
        self._client = MerchantClient(url, api_key, webhook_secret, timeout, CarrierUnavailableError)

    async def close(self) -> None:
        await self._client.close()

    async def book(self, reference: str, parcel: Parcel, recipient: Recipient) -> Booking:
        body = {
            "reference": reference, "from": parcel.warehouse, "recipient": recipient.model_dump(exclude_none=True),
            "units": sum(parcel.items.values()),
        }  # fmt: skip
        answer = await self._client.call("POST", "/v1/parcels", json=body, key=reference)
        if answer.status_code == 422 and _title(answer) == "Address not served":
            raise CarrierRefusedError("address_not_served")
        self._client.check(answer)  # any other refusal is a mistake of ours, to be looked into and mended
        return _read(_Parcel, answer).booking()

    async def look_up(self, reference: str) -> tuple[Booking, ParcelReport] | None:
        answer = await self._client.call("GET", "/v1/parcels", params={"reference": reference})
        self._client.check(answer)
        found = _read(_Found, answer).data
        return (found[0].booking(), found[0].report()) if found else None

    async def recall(self, carrier_reference: str) -> bool:
        answer = await self._client.call("POST", f"/v1/parcels/{carrier_reference}/cancel")
        if answer.status_code == 409:
            return False
        self._client.check(answer)
        return True

    def notice(self, headers: dict[str, str], body: bytes) -> tuple[str, Booking, ParcelReport] | None:
        try:
            told = self._client.notice(headers, body, "parcel")
            if told is None:
                return None
            parcel = _Parcel.model_validate(told)
            return parcel.reference, parcel.booking(), parcel.report()
        except (WebhookVerificationError, ValidationError) as error:
            raise ValueError("not a notice of the carrier") from error  # without its content, which is personal


def _read(model: type[M], answer: Answer) -> M:
    try:
        return model.model_validate_json(answer.content)
    except ValidationError:  # not shown: it may hold what is personal
        raise CarrierUnavailableError(f"{answer.asked}: not an answer of the carrier") from None


def _title(answer: Answer) -> str:
    try:
        return str(answer.json().get("title", ""))
    except (ValueError, AttributeError):
        return ""
