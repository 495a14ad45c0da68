"""How the carrier behaves: what becomes of a parcel is decided from (seed, reference) alone."""

from typing import Annotated

from pydantic import StringConstraints

from deploy.local.sandbox.rates import MerchantSettings, Rate, Rates, Seconds

from .models import Kind, Recipient


class Behaviour(Rates):
    """How often a parcel is refused, late or lost, and how long each step takes."""

    refuse_rate: Rate = 0
    delay_rate: Rate = 0
    loss_rate: Rate = 0
    webhook_loss_rate: Rate = 0
    collect_seconds: Seconds = 0.5
    transit_seconds: Seconds = 1
    promise_seconds: Seconds = 5
    delay_seconds: Seconds = 3
    moves_by_itself: bool = True

    def serves(self, reference: str, recipient: Recipient) -> bool:
        return recipient.city != "Nowhere" and self.draw("refuse", reference) >= self.refuse_rate

    def moves(self, reference: str, booked_at: float) -> list[tuple[Kind, float]]:
        """Return what will happen to a parcel, and when (seconds since 1970).

        Its end, delivered or lost, comes `transit_seconds` after its collection, and it is seen in transit half way
        there. A late one is announced at the time it should have come, and comes `delay_seconds` after the promise.
        """
        collected = booked_at + self.collect_seconds
        end = collected + self.transit_seconds
        steps: list[tuple[Kind, float]] = [("collected", collected), ("in_transit", (collected + end) / 2)]
        if self.draw("loss", reference) < self.loss_rate:
            return [*steps, ("lost", end)]
        if self.draw("late", reference) < self.delay_rate:
            late = max(booked_at + self.promise_seconds, end) + self.delay_seconds
            return [*steps, ("delayed", end), ("delivered", late)]
        return [*steps, ("delivered", end)]

    def deliveries(self, kind: str, reference: str) -> list[float]:
        """Return after how many seconds to deliver a webhook: once, twice, or never."""
        lost = self.draw("webhook-loss", f"{kind}:{reference}") < self.webhook_loss_rate
        return [] if lost else super().deliveries(kind, reference)


class Settings(MerchantSettings):
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "GBP"


def price_of(weight: int | None) -> int:
    """Return what a parcel of so many grams costs, in minor units: 3.90, and 0.50 for each kilogram begun."""
    kilograms = max(1, -(-(weight or 0) // 1000))
    return 390 + 50 * kilograms
