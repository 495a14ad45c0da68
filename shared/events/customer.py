"""What the customer service says. Ids, never names or addresses."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from shared.messages import Event


class BuyerIdentified(Event):
    """We know who placed the order and where it goes; the points it redeems are taken off the customer's balance."""

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
    """Points that the order had taken are the customer's again: all of them, or a cancelled part's."""

    order_id: UUID
    customer_id: UUID
    points: int


class PointsSettled(Event):
    """The delivered order has earned these points; those that it had ``redeemed`` are spent for good."""

    order_id: UUID
    customer_id: UUID
    earned: int
    redeemed: int = 0


IdentificationEvent = BuyerIdentified | BuyerRefused | PointsReleased | PointsSettled


class CustomerRegistered(Event):
    """A customer exists from now on. ``channel`` is where we first met."""

    customer_id: UUID
    channel: str
    tier: str = "base"
    guest: bool = False


class TierChanged(Event):
    """``pinned``: put there by somebody, and kept whatever is bought."""

    customer_id: UUID
    tier: str
    pinned: bool = False


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
