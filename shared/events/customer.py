"""What the customer service says. Ids, never names or addresses."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from shared.messages import Event


class BuyerIdentified(Event):
    """We know who placed the order and where it goes; the points it redeems are held."""

    order_id: UUID
    customer_id: UUID
    recipient_id: UUID
    new_customer: bool = False
    points_held: int = 0


class BuyerRefused(Event):
    """The order cannot be anyone's: ``reason`` is points, unknown_customer or unreadable."""

    order_id: UUID
    reason: str
    detail: str = ""


class PointsReleased(Event):
    """The points held for the order are the customer's again."""

    order_id: UUID
    customer_id: UUID
    points: int


IdentificationEvent = BuyerIdentified | BuyerRefused | PointsReleased


class CustomerRegistered(Event):
    """A customer exists from now on. ``channel`` is where we first met."""

    customer_id: UUID
    channel: str
    tier: str = "base"
    guest: bool = False


class TierChanged(Event):
    customer_id: UUID
    tier: str


class ConsentChanged(Event):
    """``purpose`` as in marketing_email; consent holds from ``occurred_at`` until changed again."""

    customer_id: UUID
    purpose: str
    granted: bool


CustomerEvent = CustomerRegistered | TierChanged | ConsentChanged


class SealingKeyPublished(Event):
    """Personal data of new orders is sealed with this X25519 public key (base64), from now until the next one."""

    key_id: UUID
    public_key: str
    valid_from: datetime


SealingKeyEvent = SealingKeyPublished
