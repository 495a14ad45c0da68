"""What the pricing service is told beyond the common settings."""

from __future__ import annotations

from pydantic import Field

from shared.settings import Settings

QUOTE_MINUTES = 15


class PricingSettings(Settings):
    quote_minutes: int = Field(default=QUOTE_MINUTES, ge=1, le=525_600)  # how long a quote may be ordered at its price
