"""How the provider behaves: by the token, and by rates that decide from (seed, reference) alone."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from .models import ProblemError, Status

Rate = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]

DECLINE_CODES = ("declined", "insufficient_funds", "expired_card")
REORDERED_SECONDS = 2.0  # long enough to be overtaken by a refund or by the next payment
DUPLICATE_SECONDS = 0.5


@dataclass(frozen=True)
class Plan:
    """What becomes of a payment, and how the caller hears of it."""

    status: Status = "captured"
    decline_code: str | None = None
    then: Literal["captured", "declined"] | None = None  # a pending payment's end, after slow_seconds
    answer: Literal["given", "late", "dropped", "lost"] = "given"
    delay_seconds: float = 0.0


TOKENS = {
    "tok_ok": Plan(),
    "tok_declined": Plan("declined", "declined"),
    "tok_insufficient_funds": Plan("declined", "insufficient_funds"),
    "tok_expired_card": Plan("declined", "expired_card"),
    "tok_slow": Plan("pending", then="captured"),
    "tok_slow_declined": Plan("pending", then="declined"),
    "tok_3ds": Plan("requires_action"),
    "tok_timeout": Plan(answer="late"),
    "tok_drop": Plan(answer="dropped"),
    "tok_lost": Plan(answer="lost"),
    "tok_never": Plan("pending"),
}


class Behaviour(BaseModel, extra="forbid"):
    """Rates from 0 to 1. The same seed and reference always give the same decision, whatever the other rates."""

    seed: int = 1
    decline_rate: Rate = 0
    pending_rate: Rate = 0
    timeout_rate: Rate = 0
    drop_rate: Rate = 0
    refund_decline_rate: Rate = 0
    delay_ms: Milliseconds = 0
    webhook_duplicate_rate: Rate = 0
    webhook_reorder_rate: Rate = 0
    webhook_delay_ms: Milliseconds = 0
    slow_seconds: Seconds = 2
    timeout_seconds: Seconds = 30

    @model_validator(mode="after")
    def _shares_of_one(self) -> Self:
        if self.decline_rate + self.pending_rate > 1 or self.timeout_rate + self.drop_rate > 1:
            raise ValueError("decline_rate + pending_rate and timeout_rate + drop_rate must each stay within 1")
        return self

    def with_changes(self, changes: "Behaviour") -> "Behaviour":
        """Return this behaviour with the fields that `changes` sets. Raises ValidationError if they do not fit."""
        return Behaviour.model_validate({**self.model_dump(), **changes.model_dump(exclude_unset=True)})

    def plan(self, token: str, reference: str) -> Plan:
        """Return what becomes of a payment; rates apply to tok_ok only. Raises ProblemError 422 if it is unknown."""
        if token not in TOKENS:
            raise ProblemError(422, "Unknown token", f"{token!r} is not a token of this sandbox")
        return self._by_rates(reference) if token == "tok_ok" else TOKENS[token]

    def refund_declined(self, reference: str) -> bool:
        return self._draw("refund", reference) < self.refund_decline_rate

    def deliveries(self, kind: str, reference: str) -> list[float]:
        """Return after how many seconds to deliver a webhook: once or twice, perhaps late enough to be overtaken."""
        about = f"{kind}:{reference}"
        first = self.webhook_delay_ms / 1000
        if self._draw("reorder", about) < self.webhook_reorder_rate:
            first += REORDERED_SECONDS
        twice = self._draw("duplicate", about) < self.webhook_duplicate_rate
        return [first, first + DUPLICATE_SECONDS] if twice else [first]

    def _by_rates(self, reference: str) -> Plan:
        delay = self._draw("delay", reference) * self.delay_ms / 1000
        fault = self._draw("answer", reference)
        answer: Literal["given", "late", "dropped"] = "given"
        if fault < self.timeout_rate + self.drop_rate:
            answer = "late" if fault < self.timeout_rate else "dropped"
        outcome = self._draw("outcome", reference)
        if outcome < self.decline_rate:
            code = DECLINE_CODES[int(self._draw("code", reference) * len(DECLINE_CODES))]
            return Plan("declined", code, answer=answer, delay_seconds=delay)
        if outcome < self.decline_rate + self.pending_rate:
            return Plan("pending", then="captured", answer=answer, delay_seconds=delay)
        return Plan(answer=answer, delay_seconds=delay)

    def _draw(self, purpose: str, reference: str) -> float:
        """Return a number in [0, 1): 53 bits, as many as a float holds, so that it is never rounded up to 1."""
        digest = blake2b(f"{self.seed}:{purpose}:{reference}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest) >> 11) / 2**53


class Settings(BaseSettings):
    """SANDBOX_* of the environment, where every field of Behaviour can be set too (SANDBOX_DROP_RATE=0.05)."""

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


class Listen(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ISTHMUS_HTTP_", extra="ignore")

    host: str = "127.0.0.1"
    port: int = 8090


def behaviour_of(environment: Mapping[str, str]) -> Behaviour:
    """Raises ValidationError when a rate is out of range."""
    names = {name: f"SANDBOX_{name.upper()}" for name in Behaviour.model_fields}
    return Behaviour.model_validate({name: environment[key] for name, key in names.items() if key in environment})


def webhook_key(secret: str) -> bytes:
    """Return the bytes behind a Standard Webhooks secret (`whsec_` + base64). Raises ValueError on anything else."""
    if not secret.startswith("whsec_"):
        raise ValueError("the webhook secret must start with whsec_")
    return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
