"""Faults at rates that decide from (seed, reference) alone, and what every sandbox is told by its environment."""

import base64
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from .problems import ProblemError

Rate = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]

REORDERED_SECONDS = 2.0  # long enough to be overtaken by what is told next
DUPLICATE_SECONDS = 0.5


class Seeded(BaseModel, extra="forbid"):
    """Rates from 0 to 1. The same seed and reference always give the same decision, whatever the other rates."""

    seed: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read SANDBOX_DROP_RATE and so on. Raises ValidationError when a rate is out of range."""
        names = {name: f"SANDBOX_{name.upper()}" for name in cls.model_fields}
        return cls.model_validate({name: environment[key] for name, key in names.items() if key in environment})

    def with_changes(self, changes: Self) -> Self:
        """Return this behaviour with the fields that `changes` sets. Raises ProblemError 422 if they do not fit."""
        try:
            return self.model_validate({**self.model_dump(), **changes.model_dump(exclude_unset=True)})
        except ValidationError as error:
            raise ProblemError(422, "Rates do not fit together", error.errors()[0]["msg"]) from error

    def draw(self, purpose: str, reference: str) -> float:
        """Return a number in [0, 1): 53 bits, as many as a float holds, so that it is never rounded up to 1."""
        digest = blake2b(f"{self.seed}:{purpose}:{reference}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest) >> 11) / 2**53


class Rates(Seeded):
    """The faults of every merchant's API: answers that come late or never, webhooks that come twice or late."""

    timeout_rate: Rate = 0
    timeout_seconds: Seconds = 30
    drop_rate: Rate = 0
    webhook_duplicate_rate: Rate = 0
    webhook_copies: Annotated[int, Field(ge=2, le=9)] = 2  # of one that is duplicated
    webhook_reorder_rate: Rate = 0
    webhook_delay_ms: Milliseconds = 0

    @model_validator(mode="after")
    def _answers_share_one(self) -> Self:
        if self.timeout_rate + self.drop_rate > 1:
            raise ValueError("timeout_rate + drop_rate must stay within 1")
        return self

    def answer(self, reference: str) -> Literal["given", "late", "dropped"]:
        """Return how the caller hears of the first request with this reference."""
        fault = self.draw("answer", reference)
        if fault >= self.timeout_rate + self.drop_rate:
            return "given"
        return "late" if fault < self.timeout_rate else "dropped"

    def deliveries(self, kind: str, reference: str) -> list[float]:
        """Return after how many seconds to deliver a webhook: once or more often, perhaps overtaken by the next."""
        about = f"{kind}:{reference}"
        first = self.webhook_delay_ms / 1000
        if self.draw("reorder", about) < self.webhook_reorder_rate:
            first += REORDERED_SECONDS
        copies = self.webhook_copies if self.draw("duplicate", about) < self.webhook_duplicate_rate else 1
        return [first + number * DUPLICATE_SECONDS for number in range(copies)]


class MerchantSettings(BaseSettings):
    """SANDBOX_* of the environment, where every rate can be set too (SANDBOX_DROP_RATE=0.05)."""

    model_config = SettingsConfigDict(env_prefix="SANDBOX_", extra="ignore")

    database: Path
    api_key: SecretStr
    webhook_secret: SecretStr
    webhook_url: str | None = None

    @field_validator("webhook_secret")
    @classmethod
    def _decodable(cls, secret: SecretStr) -> SecretStr:
        webhook_key(secret.get_secret_value())
        return secret


def webhook_key(secret: str) -> bytes:
    """Return the bytes behind a Standard Webhooks secret (`whsec_` + base64). Raises ValueError on anything else."""
    if not secret.startswith("whsec_"):
        raise ValueError("the webhook secret must start with whsec_")
    return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
