"""How the provider behaves: by the token, and by rates that decide from (seed, reference) alone."""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import model_validator

from deploy.local.sandbox.problems import ProblemError
from deploy.local.sandbox.rates import MerchantSettings, Milliseconds, Rate, Rates, Seconds

from .models import Status

DECLINE_CODES = ("declined", "insufficient_funds", "expired_card")


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


class Behaviour(Rates):
    """What may go wrong with a tok_ok, and how long the slow tokens take."""

    decline_rate: Rate = 0
    pending_rate: Rate = 0
    refund_decline_rate: Rate = 0
    delay_ms: Milliseconds = 0
    slow_seconds: Seconds = 2

    @model_validator(mode="after")
    def _outcomes_share_one(self) -> Self:
        if self.decline_rate + self.pending_rate > 1:
            raise ValueError("decline_rate + pending_rate must stay within 1")
        return self

    def plan(self, token: str, reference: str) -> Plan:
        """Return what becomes of a payment; rates apply to tok_ok only. Raises ProblemError 422 if it is unknown."""
        if token not in TOKENS:
            raise ProblemError(422, "Unknown token", f"{token!r} is not a token of this sandbox")
        return self._by_rates(reference) if token == "tok_ok" else TOKENS[token]

    def refund_declined(self, reference: str) -> bool:
        return self.draw("refund", reference) < self.refund_decline_rate

    def _by_rates(self, reference: str) -> Plan:
        delay = self.draw("delay", reference) * self.delay_ms / 1000
        answer = self.answer(reference)
        outcome = self.draw("outcome", reference)
        if outcome < self.decline_rate:
            code = DECLINE_CODES[int(self.draw("code", reference) * len(DECLINE_CODES))]
            return Plan("declined", code, answer=answer, delay_seconds=delay)
        if outcome < self.decline_rate + self.pending_rate:
            return Plan("pending", then="captured", answer=answer, delay_seconds=delay)
        return Plan(answer=answer, delay_seconds=delay)


class Settings(MerchantSettings):
    """The provider needs nothing beyond what every sandbox is told."""
