"""What the order service says: an order from placed to its end."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from shared.messages import Event, Value


class OrderLine(Value):
    """One line as it was asked for; ``unit_price`` only where the channel sets its own prices."""

    line: int
    sku: str
    quantity: int
    unit_price: Decimal | None = None


class Destination(Value):
    """Where an order goes, as coarse as tax and the nearest warehouse need it: ISO 3166 country, postal area."""

    country: str
    postal_area: str | None = None


class OrderPlaced(Event):
    """An order was accepted. Customer, pricing and inventory answer it."""

    order_id: UUID
    channel: str
    external_reference: str
    customer_id: UUID | None = None
    currency: str
    lines: tuple[OrderLine, ...]
    coupon: str | None = None
    points: int = 0
    expected_total: Decimal | None = None
    prepaid: bool = False
    destination: Destination
    quote_id: UUID | None = None  # the quote whose price it is to have


class PaymentRequested(Event):
    """The order is identified, priced and held; its payment is under way at the provider."""

    order_id: UUID
    payment_id: UUID
    amount: Decimal
    currency: str


class PaymentActionRequired(Event):
    """The buyer must do something, such as 3-D Secure, before the payment can go on."""

    order_id: UUID
    payment_id: UUID
    redirect_url: str


class PaymentCaptured(Event):
    """The provider (or the channel, for a prepaid order) has the money."""

    order_id: UUID
    payment_id: UUID
    amount: Decimal
    currency: str
    provider: str
    late: bool = False  # after the order had ended: a refund follows


class PaymentDeclined(Event):
    order_id: UUID
    payment_id: UUID
    reason: str


class RefundRequested(Event):
    order_id: UUID
    payment_id: UUID
    refund_id: UUID
    amount: Decimal
    currency: str
    reason: str


class PaymentRefunded(Event):
    order_id: UUID
    payment_id: UUID
    refund_id: UUID
    amount: Decimal
    currency: str


class OrderConfirmed(Event):
    """Identified, priced, held and paid: the merchant owes the goods."""

    order_id: UUID
    customer_id: UUID
    recipient_id: UUID
    total: Decimal
    currency: str


class CancelledLine(Value):
    line: int
    sku: str
    quantity: int
    amount: Decimal


class OrderLinesCancelled(Event):
    """Part of a confirmed order was cancelled before shipment; what was paid for it goes back."""

    order_id: UUID
    lines: tuple[CancelledLine, ...]
    amount: Decimal
    currency: str


class OrderRejected(Event):
    """The order ended with a no: ``reason`` is stock, price_differs, coupon, points, payment_declined, …"""

    order_id: UUID
    reason: str
    detail: str = ""


class OrderCancelled(Event):
    """The order was ended by the buyer or the merchant."""

    order_id: UUID
    reason: str = "requested"


class OrderExpired(Event):
    """The order ended because an answer or a payment did not come in time; ``waiting_for`` names what was missing."""

    order_id: UUID
    waiting_for: tuple[str, ...] = ()


OrderEvent = (
    OrderPlaced
    | PaymentRequested
    | PaymentActionRequired
    | PaymentCaptured
    | PaymentDeclined
    | RefundRequested
    | PaymentRefunded
    | OrderConfirmed
    | OrderLinesCancelled
    | OrderRejected
    | OrderCancelled
    | OrderExpired
)


class BuyerSealed(Event):
    """Who buys and who receives, readable by the customer service alone.

    ``sealed`` is base64 of a libsodium sealed box around the JSON of ``shared.sealing.SealedBuyer``, made with the
    public key ``key_id`` of the customer service.
    """

    order_id: UUID
    channel: str
    customer_id: UUID | None = None
    points: int = 0
    key_id: UUID
    sealed: str


class SealingKeyRetired(Event):
    """No order that is still unidentified was sealed with this key, nor will one be: its private half may go."""

    key_id: UUID
    retired_at: datetime
