"""What the order service is told beyond the common settings."""

from __future__ import annotations

from shared.settings import Settings


class OrderSettings(Settings):
    payments_url: str
    payments_api_key: str
    payments_webhook_secret: str
    payments_timeout: float = 5.0  # seconds, per call
    fingerprint_key: str  # keys the HMAC of requests, which may hold personal data
    answer_deadline: int = 120  # seconds for identification, price and stock
    payment_deadline: int = 300  # seconds for the payment
