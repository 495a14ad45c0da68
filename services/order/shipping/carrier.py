"""A carrier, as the order service needs one. Adapters speak the protocol of a particular carrier."""

from __future__ import annotations

from typing import Protocol

from pydantic import ConfigDict, field_validator

from services.order.shipping.decisions import Booking, ParcelReport
from services.order.state import Parcel
from shared import sealing


class CarrierUnavailableError(Exception):
    """No clear answer came: look the parcel up, or ask again with the same reference."""


class CarrierRefusedError(Exception):
    """The carrier does not take this parcel, and would not if asked again; ``reason`` is a code of ours."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Recipient(sealing.Recipient):
    """Where a parcel goes, as the customer service says it. Passed on, never stored or logged."""

    model_config = ConfigDict(hide_input_in_errors=True)

    @field_validator("postal_code", "region", "phone")
    @classmethod
    def _blank_is_nothing(cls, value: str | None) -> str | None:
        return (value or "").strip() or None


class Carrier(Protocol):
    """Calls are idempotent by ``reference``; each raises CarrierUnavailableError when no clear answer came."""

    async def book(self, reference: str, parcel: Parcel, recipient: Recipient) -> Booking:
        """Have the parcel collected. Raises CarrierRefusedError, as for an address that does not exist."""
        ...

    async def look_up(self, reference: str) -> tuple[Booking, ParcelReport] | None:
        """What the carrier knows of a parcel; None if the booking never reached it."""
        ...

    async def recall(self, carrier_reference: str) -> bool:
        """Undo a booking; False when the parcel has been collected already."""
        ...

    def notice(self, headers: dict[str, str], body: bytes) -> tuple[str, Booking, ParcelReport] | None:
        """Our reference and what a signed notice says, without anything personal; None if it is of no interest.

        Raises ValueError on a forgery.
        """
        ...

    async def close(self) -> None: ...
