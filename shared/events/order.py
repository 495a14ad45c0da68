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
    fee: Decimal = Decimal(0)  # what the provider, or the channel of a prepaid order, keeps of it


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


class HeldUnits(Value):
    """Units of a SKU that are held for an order in one warehouse."""

    sku: str
    warehouse: str
    quantity: int


class OrderLinesCancelled(Event):
    """Part of a confirmed order is not delivered; what was paid for it goes back: ``amount``, and ``points``.

    ``reason`` is requested, undeliverable (the carrier refused the parcel) or lost. ``allocations`` are the held units
    that this sets free: none for a lost parcel, and left to inventory where absent. ``tax``, ``discount`` and
    ``points_value`` are the cancelled lines' share of the order's.
    """

    order_id: UUID
    lines: tuple[CancelledLine, ...]
    amount: Decimal
    currency: str
    reason: str = "requested"
    allocations: tuple[HeldUnits, ...] | None = None
    tax: Decimal = Decimal(0)
    discount: Decimal = Decimal(0)
    points_value: Decimal = Decimal(0)
    points: int = 0


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


class ParcelItem(Value):
    sku: str
    quantity: int


class ParcelBooked(Event):
    """A carrier will collect a parcel of the order; ``parcel`` counts from 1 within it.

    ``promised_at`` is when the carrier means to have delivered it, ``price`` what it asks for that.
    """

    order_id: UUID
    parcel: int
    warehouse: str
    carrier: str
    tracking: str
    items: tuple[ParcelItem, ...]
    promised_at: datetime | None = None
    price: Decimal = Decimal(0)
    currency: str


class ParcelRecalled(Event):
    """A booking was undone before the carrier had collected the parcel; ``price`` is no longer owed."""

    order_id: UUID
    parcel: int
    price: Decimal = Decimal(0)
    currency: str


class ParcelRefused(Event):
    """The carrier does not take the parcel, as where there is no such address: an anomaly."""

    order_id: UUID
    parcel: int
    reason: str


class ParcelShipped(Event):
    """The goods have left ``warehouse``; told by the carrier, or by the channel that ships its orders itself."""

    order_id: UUID
    parcel: int
    warehouse: str
    carrier: str
    tracking: str | None = None
    items: tuple[ParcelItem, ...]


class ParcelDelivered(Event):
    order_id: UUID
    parcel: int


class ParcelLate(Event):
    """The parcel has not come by the time the carrier had promised: an anomaly, told once."""

    order_id: UUID
    parcel: int
    promised_at: datetime


class ParcelLost(Event):
    """The parcel will not come: an anomaly. What was paid for it goes back."""

    order_id: UUID
    parcel: int
    items: tuple[ParcelItem, ...]


class CancellationRequested(Event):
    """The order, or lines of it, are to be cancelled as soon as the carrier has given these parcels back."""

    order_id: UUID
    parcels: tuple[int, ...]
    reason: str = "requested"


class CancellationRefused(Event):
    """Too late: the carrier has collected the parcel. What has left is returned, not cancelled."""

    order_id: UUID
    parcel: int | None = None


class OrderSettled(Event):
    """Everything that was not cancelled has been delivered; ``amount`` is what the order has brought in the end."""

    order_id: UUID
    customer_id: UUID
    amount: Decimal
    currency: str


class OrderClosed(Event):
    """Delivered, paid, in the books: nothing is left to be done."""

    order_id: UUID


class OrderRestated(Event):
    """What the order has by now, said again because another service was seen to hold something else for it.

    Whoever holds something puts it right by this, in its place among the order's events: ``goods`` are all units that
    are held for it (absent: let them be), ``points`` what it has taken (absent: let them be), and its coupon and quote
    are its own as long as ``keeps_coupon``. ``state`` is confirmed, closed, rejected, cancelled or expired.
    """

    order_id: UUID
    state: str
    goods: tuple[HeldUnits, ...] | None = None
    points: int | None = None
    keeps_coupon: bool


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
    | ParcelBooked
    | ParcelRecalled
    | ParcelRefused
    | ParcelShipped
    | ParcelDelivered
    | ParcelLate
    | ParcelLost
    | CancellationRequested
    | CancellationRefused
    | OrderSettled
    | OrderClosed
    | OrderRejected
    | OrderCancelled
    | OrderExpired
    | OrderRestated
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
