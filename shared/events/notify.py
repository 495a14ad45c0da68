"""What notify says: care that was triggered for a customer."""

from __future__ import annotations

from uuid import UUID

from shared.messages import Event


class CareTriggered(Event):
    """A customer is to be told something, at most once per (order, trigger): order_confirmed, order_refused, …"""

    order_id: UUID
    trigger: str
    customer_id: UUID | None = None
    reason: str | None = None


CareEvent = CareTriggered
