"""Settings of the customer service."""

from __future__ import annotations

import base64
import binascii
from decimal import Decimal
from itertools import pairwise

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from services.customer.registry import Programme
from services.customer.tiers import BASE, THRESHOLDS
from shared.money import known_currency
from shared.settings import Settings


class CustomerSettings(Settings):
    """``masked_emails`` are regular expressions of addresses that a marketplace made up, matched against the whole."""

    model_config = SettingsConfigDict(hide_input_in_errors=True)  # a key that is no good is still nobody's business

    master_key: SecretStr = Field(description="base64 of 32 bytes; whoever has it and the database can read everything")
    sealing_key_hours: float = Field(default=24, gt=0, description="age at which a new sealing key is made")
    masked_emails: tuple[str, ...] = (
        r".+@(.+\.)?marketplace\.example",
        r".+@marketplace\.amazon\.[a-z.]+",
        r".+@members\.ebay\.[a-z.]+",
    )
    masking_channels: tuple[str, ...] = Field(default=(), description="channels that mask every address")
    points_per_unit: dict[str, Decimal] = Field(
        default_factory=dict[str, Decimal],
        description="points for a major unit, by currency; others earn 1, those without minor units 0.01",
    )
    tier_thresholds: dict[str, int] = Field(
        default_factory=lambda: dict(THRESHOLDS),
        description="points within 365 days that make a tier, the lowest first; below them all is base",
    )

    @field_validator("master_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr) -> SecretStr:
        try:
            length = len(base64.b64decode(value.get_secret_value(), validate=True))
        except binascii.Error as error:
            raise ValueError("not base64") from error
        if length != 32:
            raise ValueError(f"{length} bytes, not 32")
        return value

    @field_validator("points_per_unit")
    @classmethod
    def _are_rates(cls, value: dict[str, Decimal]) -> dict[str, Decimal]:
        for currency, rate in value.items():
            known_currency(currency)
            if not 0 <= rate <= 1_000_000:
                raise ValueError(f"{rate} points for one {currency}")
        return value

    @field_validator("tier_thresholds")
    @classmethod
    def _ascend(cls, value: dict[str, int]) -> dict[str, int]:
        steps = [0, *value.values()]
        if BASE in value or any(low >= high for low, high in pairwise(steps)):
            raise ValueError(f"above {BASE}, which needs no points, each tier needs more than the one before")
        return value

    def programme(self) -> Programme:
        return Programme(self.points_per_unit, self.tier_thresholds)

    def master_key_bytes(self) -> bytes:
        return base64.b64decode(self.master_key.get_secret_value())
