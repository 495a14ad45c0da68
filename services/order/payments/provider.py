"""The payment provider, as the order service needs one. Adapters speak the protocol of a particular provider."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol
from uuid import UUID

from services.order.payments.decisions import PaymentReport


class UnknownOutcomeError(Exception):
    """The provider may or may not have done it: look it up, or ask again with the same key."""


class Provider(Protocol):
    """All calls are idempotent by their id. Each raises UnknownOutcomeError when no clear answer came."""

    async def charge(self, payment_id: UUID, token: str, amount: Decimal, currency: str) -> PaymentReport:
        """Authorise and capture. A refusal for whatever reason is a report, declined, with the reason."""
        ...

    async def look_up(self, payment_id: UUID) -> PaymentReport | None:
        """What became of a payment; None if it never reached the provider."""
        ...

    async def payments_since(self, cursor: str | None) -> tuple[list[tuple[str, PaymentReport]], str | None]:
        """A page of the provider's log from its beginning (None) or from ``cursor`` on, the oldest payment first.

        Each with our reference, which anybody may have written there; and the cursor that follows, None at the end.
        """
        ...

    async def void(self, payment_id: UUID, provider_reference: str) -> PaymentReport:
        """Close a payment that is not captured yet; reports captured if it was too late for that."""
        ...

    async def refund(self, refund_id: UUID, key: UUID, provider_reference: str, amount: Decimal) -> bool:
        """Pay back; False when the provider refuses. A no is final for its ``key``: another try needs another one."""
        ...

    def webhook(self, headers: dict[str, str], body: bytes) -> tuple[UUID, PaymentReport] | None:
        """The payment a signed notice speaks of; None if it is of no interest. Raises ValueError on a forgery."""
        ...

    async def close(self) -> None: ...
