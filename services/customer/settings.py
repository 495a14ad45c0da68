"""Settings of the customer service."""

from __future__ import annotations

import base64
import binascii

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

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

    def master_key_bytes(self) -> bytes:
        return base64.b64decode(self.master_key.get_secret_value())
