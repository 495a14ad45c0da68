"""What the order service is told beyond the common settings."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from shared.clients import CallerSettings


class OrderSettings(CallerSettings):
    payments_url: str
    payments_api_key: str
    payments_webhook_secret: str
    payments_timeout: float = 5.0  # seconds, per call
    carrier_url: str
    carrier_api_key: str
    carrier_webhook_secret: str
    carrier_timeout: float = 5.0  # seconds, per call
    fingerprint_key: str  # keys the HMAC of requests, which may hold personal data
    answer_deadline: int = 120  # seconds for identification, price and stock
    payment_deadline: int = 300  # seconds for the payment
    parcel_lost_hours: float = Field(default=14 * 24, gt=0, description="late for so long, a parcel is taken for lost")

    @property
    def give_up_after(self) -> timedelta:
        return timedelta(hours=self.parcel_lost_hours)
