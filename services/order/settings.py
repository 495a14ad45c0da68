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
    max_open_orders: int = Field(default=10_000, ge=1, description="waiting ones, of all replicas; beyond: 503")
    max_in_flight: int = Field(default=200, ge=1, description="orders being placed in this process; beyond: 503")
    parcel_lost_hours: float = Field(default=14 * 24, gt=0, description="late for so long, a parcel is taken for lost")
    inventory_url: str
    pricing_url: str
    reconcile_seconds: float = Field(
        default=5, ge=0, description="between two turns of the reconciler; 0 switches it off"
    )
    reconcile_rest_seconds: float = Field(default=60, ge=0, description="what is unchanged for so long is at rest")
    reconcile_pass_seconds: float = Field(default=300, ge=0, description="from one pass to the next, at the least")
    reconcile_recent_days: float = Field(default=3, gt=0, description="orders placed since are walked more often")

    @property
    def give_up_after(self) -> timedelta:
        return timedelta(hours=self.parcel_lost_hours)
