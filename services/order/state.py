"""What an order is: its state as its events have made it. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from shared.events.customer import BuyerIdentified, IdentificationEvent, PointsSettled
from shared.events.inventory import HoldEvent, StockHeld, StockIssued
from shared.events.order import (
    CancellationRefused,
    CancellationRequested,
    HeldUnits,
    OrderCancelled,
    OrderClosed,
    OrderConfirmed,
    OrderEvent,
    OrderExpired,
    OrderLinesCancelled,
    OrderPlaced,
    OrderRejected,
    OrderRestated,
    OrderSettled,
    ParcelBooked,
    ParcelDelivered,
    ParcelLate,
    ParcelLost,
    ParcelRecalled,
    ParcelRefused,
    ParcelShipped,
    PaymentActionRequired,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRefunded,
    PaymentRequested,
    RefundRequested,
)
from shared.events.pricing import OrderPriced, PricedLine, QuoteEvent

Answer = IdentificationEvent | HoldEvent | QuoteEvent

ENDED = frozenset({"rejected", "cancelled", "expired", "closed"})
OPEN_PAYMENT = frozenset({"requested", "pending", "action_required"})
LEFT = frozenset({"shipped", "delivered", "lost"})  # states of parcels that are no longer in the warehouse
AT_CARRIER = frozenset({"booking", "booked"})
GONE = frozenset({"shipped", "delivered"})  # what the buyer has, or will have
FINAL = frozenset({"delivered", "lost", "refused", "dropped"})


@dataclass
class Payment:
    """``state``: requested, pending (the provider works on it), action_required, captured, declined or cancelled."""

    payment_id: UUID
    amount: Decimal
    state: str = "requested"
    provider: str = "card"
    captured: Decimal = Decimal(0)
    refunded: Decimal = Decimal(0)
    refunds: dict[UUID, Decimal] = field(default_factory=dict[UUID, Decimal])  # requested and not yet done
    provider_reference: str | None = None
    redirect_url: str | None = None
    closing: bool = False

    @property
    def open(self) -> bool:
        """Money may still move at the provider."""
        return self.state in OPEN_PAYMENT

    @property
    def refundable(self) -> Decimal:
        return self.captured - self.refunded - sum(self.refunds.values(), Decimal(0))


@dataclass
class Parcel:
    """What goes from one warehouse. ``items``: units by SKU, fewer after a cancellation.

    ``state``: planned, booking (the carrier is being asked), booked, recalling (it is asked to give it back), shipped,
    delivered, lost, refused (by the carrier), dropped (cancelled). ``bookings`` counts those that were undone.
    """

    number: int
    warehouse: str
    items: dict[str, int]
    state: str = "planned"
    carrier: str | None = None
    carrier_reference: str | None = None
    tracking: str | None = None
    promised_at: datetime | None = None
    price: Decimal = Decimal(0)
    currency: str | None = None
    bookings: int = 0
    late: bool = False
    issued: bool = False  # inventory has told what its goods had cost
    made_good: bool = False  # lost or refused, and what was paid for it went back
    since: datetime | None = None  # when it came into its state, by the database's clock; None: just now

    def plan_again(self) -> None:
        """Its booking is undone: the next one has a reference and a promise of its own."""
        self.bookings += 1
        self.state, self.price, self.tracking, self.carrier_reference = "planned", Decimal(0), None, None
        self.promised_at, self.late = None, False


@dataclass(frozen=True)
class Sale:
    """What of the order's worth stands in the books: ``goods`` with tax and before any discount."""

    goods: Decimal
    discount: Decimal
    tax: Decimal
    points_value: Decimal

    @property
    def due(self) -> Decimal:
        return self.goods - self.discount - self.points_value

    def less(self, part: Sale) -> Sale:
        return Sale(
            self.goods - part.goods, self.discount - part.discount, self.tax - part.tax,
            self.points_value - part.points_value,
        )  # fmt: skip

    @staticmethod
    def of(priced: OrderPriced) -> Sale:
        goods = sum((line.total + line.discount for line in priced.lines), Decimal(0))
        return Sale(goods, priced.discount, priced.tax, priced.points_value)

    @staticmethod
    def cancelled(event: OrderLinesCancelled) -> Sale:
        goods = event.amount + event.points_value + event.discount
        return Sale(goods, event.discount, event.tax, event.points_value)


NOTHING = Sale(Decimal(0), Decimal(0), Decimal(0), Decimal(0))


@dataclass(frozen=True)
class Cancellation:
    """Waits until the carrier has given ``parcels`` back. ``units`` per line; None is the whole order."""

    units: Mapping[int, int] | None
    reason: str
    parcels: tuple[int, ...] = ()
    too_late: int | None = None  # the parcel that the carrier has collected already


@dataclass
class Order:
    """An order as far as its process needs it."""

    order_id: UUID
    channel: str
    currency: str
    expected_total: Decimal | None = None
    prepaid: bool = False
    channel_fee: Decimal = Decimal(0)
    fulfilment: str = "carrier"  # or channel (it ships its orders itself), or immediate (handed over when confirmed)
    points: int = 0
    state: str = "placed"
    version: int = 0
    customer_id: UUID | None = None
    recipient_id: UUID | None = None
    identified: bool = False
    held: bool = False
    priced: bool = False
    total: Decimal | None = None
    sale: Sale | None = None
    point_value: Decimal | None = None
    priced_lines: Sequence[PricedLine] | None = None  # loaded only where lines matter
    cancelled_lines: dict[int, int] = field(default_factory=dict[int, int])
    cancelled_amount: Decimal = Decimal(0)
    reason: str | None = None
    payment: Payment | None = None
    allocations: dict[str, dict[str, int]] | None = None  # units held by warehouse and SKU, until parcels are planned
    parcels: list[Parcel] = field(default_factory=list[Parcel])
    cancellation: Cancellation | None = None
    settled: bool = False
    points_settled: bool = False

    def hear(self, answer: Answer) -> None:
        """Note what another service said; its first word counts."""
        match answer:
            case BuyerIdentified(customer_id=customer, recipient_id=recipient):
                self.identified, self.customer_id, self.recipient_id = True, customer, recipient
            case StockHeld(allocations=allocations) if not self.held:
                self.held, self.allocations = True, {}
                for part in allocations:
                    self.allocations.setdefault(part.warehouse, {})[part.sku] = part.quantity
            case OrderPriced(total=total, lines=lines, point_value=point_value) if not self.priced:
                self.priced, self.total, self.priced_lines = True, total, lines
                self.sale, self.point_value = Sale.of(answer), point_value
            case StockIssued(parcel=number):
                for parcel in self.parcels:
                    parcel.issued = parcel.issued or parcel.number == number
            case PointsSettled():
                self.points_settled = True
            case _:
                pass

    def parcel(self, number: int) -> Parcel | None:
        return next((parcel for parcel in self.parcels if parcel.number == number), None)

    def evolve(self, event: OrderEvent) -> int:
        """Apply ``event`` and return the version it gives the order."""
        match event:
            case OrderPlaced():
                self.state = "placed"
            case OrderConfirmed():
                self.state = "confirmed"
                self._plan_parcels()
            case OrderLinesCancelled():
                self._cancel_lines(event)
            case OrderSettled():
                self.settled = True
            case OrderClosed():
                self._end("closed", None)
            case OrderRejected(reason=reason):
                self._end("rejected", reason)
            case OrderCancelled(reason=reason):
                self._cancel(reason)
            case OrderExpired(waiting_for=missing):
                self._end("expired", ", ".join(missing))
            case CancellationRequested(parcels=numbers):
                for parcel in self._parcels(numbers):
                    parcel.state = "recalling"
            case CancellationRefused():
                self.cancellation = None
            case OrderRestated():
                pass
            case (
                PaymentRequested() | PaymentActionRequired() | PaymentCaptured() | PaymentDeclined()
                | RefundRequested() | PaymentRefunded()
            ):  # fmt: skip
                self._pay(event)
            case _:
                self._move(event)
        self.version += 1
        return self.version

    def _pay(
        self,
        event: PaymentRequested
        | PaymentActionRequired
        | PaymentCaptured
        | PaymentDeclined
        | RefundRequested
        | PaymentRefunded,
    ) -> None:
        match event:
            case PaymentRequested(payment_id=payment_id, amount=amount):
                self.state, self.payment = "paying", Payment(payment_id, amount)
            case PaymentActionRequired(redirect_url=url):
                self._paid().state, self._paid().redirect_url = "action_required", url
            case PaymentCaptured(payment_id=payment_id, amount=amount, provider=provider):
                self.payment = self.payment or Payment(payment_id, amount, provider=provider)
                self.payment.state, self.payment.captured = "captured", self.payment.captured + amount
            case PaymentDeclined():
                self._paid().state = "declined"
            case RefundRequested(refund_id=refund_id, amount=amount):
                self._paid().refunds[refund_id] = amount
            case PaymentRefunded(refund_id=refund_id, amount=amount):
                self._paid().refunds.pop(refund_id, None)
                self._paid().refunded += amount

    def _move(
        self,
        event: ParcelBooked
        | ParcelRecalled
        | ParcelRefused
        | ParcelShipped
        | ParcelDelivered
        | ParcelLate
        | ParcelLost,
    ) -> None:
        (parcel,) = self._parcels([event.parcel])
        match event:
            case ParcelBooked():
                parcel.carrier, parcel.tracking, parcel.promised_at = event.carrier, event.tracking, event.promised_at
                parcel.price, parcel.currency = event.price, event.currency
                if parcel.state == "booking":
                    parcel.state = "booked"
            case ParcelRecalled():
                parcel.plan_again()
            case ParcelRefused():
                parcel.state = "refused"
            case ParcelShipped(carrier=carrier, tracking=tracking):
                parcel.carrier, parcel.tracking = carrier, tracking or parcel.tracking
                if parcel.state not in LEFT:  # said again, it takes nothing back
                    parcel.state = "shipped"
            case ParcelDelivered():
                parcel.state = "delivered"
            case ParcelLate():
                parcel.late = True
            case ParcelLost():
                parcel.state = "lost"

    def _plan_parcels(self) -> None:
        """One parcel per warehouse."""
        held = self.allocations or {}
        self.parcels = [Parcel(number, code, dict(held[code])) for number, code in enumerate(sorted(held), 1)]

    def _cancel_lines(self, event: OrderLinesCancelled) -> None:
        for line in event.lines:
            self.cancelled_lines[line.line] = self.cancelled_lines.get(line.line, 0) + line.quantity
        self.cancelled_amount += event.amount
        self.sale = self.sale.less(Sale.cancelled(event)) if self.sale else None
        if event.reason not in ("lost", "undeliverable"):
            self.cancellation = None
        for freed in event.allocations or ():
            self._take_out(freed)
        for parcel in self.parcels:
            if parcel.state in ("lost", "refused"):
                parcel.made_good = True

    def _take_out(self, freed: HeldUnits) -> None:
        for parcel in self.parcels:
            if parcel.warehouse == freed.warehouse and parcel.state not in LEFT:
                left = parcel.items.get(freed.sku, 0) - freed.quantity
                if left > 0:
                    parcel.items[freed.sku] = left
                else:
                    parcel.items.pop(freed.sku, None)
                if not parcel.items and parcel.state == "planned":
                    parcel.state = "dropped"

    def _cancel(self, reason: str) -> None:
        if self.state == "confirmed" and self.total is not None:
            self.cancelled_amount, self.sale = self.total, NOTHING
        for parcel in self.parcels:
            if parcel.state == "planned":
                parcel.state = "dropped"
        self.cancellation = None
        self._end("cancelled", reason)

    def _end(self, state: str, reason: str | None) -> None:
        self.state, self.reason = state, reason
        if self.payment is not None and self.payment.open:
            self.payment.closing = True

    def _paid(self) -> Payment:
        assert self.payment is not None, f"order {self.order_id} has no payment"
        return self.payment

    def _parcels(self, numbers: Iterable[int]) -> list[Parcel]:
        wanted = set(numbers)
        return [parcel for parcel in self.parcels if parcel.number in wanted]

    @property
    def missing(self) -> tuple[str, ...]:
        """What the order still waits for."""
        legs = {"identification": self.identified, "price": self.priced, "stock": self.held}
        return tuple(leg for leg, there in legs.items() if not there) or ("payment",)
