"""What notify says: care that was triggered for a customer, and what became of it."""

from __future__ import annotations

from uuid import UUID

from shared.messages import Event


class CareTriggered(Event):
    """A customer is to be told something, at most once per (order, trigger).

    ``trigger`` is order_confirmed, order_refused, order_expired, order_cancelled, parcel_late, parcel_lost,
    parcel_undeliverable or thank_you.
    """

    order_id: UUID
    trigger: str
    customer_id: UUID | None = None
    reason: str | None = None


class CareSent(Event):
    """The customer's mail server (or the first on the way to it) has the message."""

    order_id: UUID
    trigger: str
    customer_id: UUID
    channel: str = "email"
    template: str


class CareFailed(Event):
    """The customer is not told: ``reason`` is opted_out, no_consent, no_address, unknown_customer, order_ended (the
    message is no longer true), stale (it tells of what is long past), rejected (by the mail server), unknown (a crash
    or a broken connection just when the message was handed over: sent again it could come twice) or gave_up."""

    order_id: UUID
    trigger: str
    customer_id: UUID | None = None
    reason: str


CareEvent = CareTriggered | CareSent | CareFailed
