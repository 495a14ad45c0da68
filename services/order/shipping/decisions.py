"""What is decided about parcels: booked, recalled, shipped, delivered, late or lost. No I/O, no clock.

Monotone: what the carrier says late, twice or in the wrong order never takes a parcel back. What follows for the order
(refund, settlement) is the order's business, see ``services.order.decisions.finish``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from services.order.cancellations import give_up
from services.order.state import AT_CARRIER, FINAL, LEFT, Order, Parcel
from shared.events.order import (
    OrderEvent,
    ParcelBooked,
    ParcelDelivered,
    ParcelItem,
    ParcelLate,
    ParcelLost,
    ParcelRecalled,
    ParcelRefused,
    ParcelShipped,
)

USUAL_TIME = timedelta(days=7)  # to the buyer, where the carrier promises nothing
BOOKING_TIME = timedelta(days=1)  # for the carrier's answer
CHANNEL_TIME = timedelta(days=14)  # for a channel that ships its orders itself
MOST_BOOKINGS = 3


@dataclass(frozen=True)
class Booking:
    """The carrier has made a label. ``reference`` is its own name of the parcel."""

    carrier: str
    reference: str
    tracking: str
    promised_at: datetime | None = None
    price: Decimal = Decimal(0)
    currency: str = ""


@dataclass(frozen=True)
class ParcelReport:
    """Where the carrier says a parcel is: booked, shipped, delivered, lost or cancelled; ``at`` is when that was."""

    status: str
    at: datetime
    promised_at: datetime | None = None


def booked(order: Order, parcel: Parcel, booking: Booking, at: datetime) -> list[OrderEvent]:
    """The carrier has taken the booking; one that is to be called back already is known all the same."""
    if parcel.state == "planned" or parcel.state in FINAL or parcel.carrier_reference is not None:
        return []
    parcel.carrier_reference = booking.reference
    return [
        ParcelBooked(
            occurred_at=at, order_id=order.order_id, parcel=parcel.number, warehouse=parcel.warehouse,
            carrier=booking.carrier, tracking=booking.tracking, items=items(parcel),
            promised_at=booking.promised_at or at + USUAL_TIME,
            price=booking.price, currency=booking.currency,
        )
    ]  # fmt: skip


def refused(order: Order, parcel: Parcel, reason: str, at: datetime) -> list[OrderEvent]:
    """The carrier does not take the parcel; ``reason`` is a code, as address_not_served."""
    return [_refused(order, parcel, reason, at)] if parcel.state == "booking" else []


def _refused(order: Order, parcel: Parcel, reason: str, at: datetime) -> ParcelRefused:
    return ParcelRefused(occurred_at=at, order_id=order.order_id, parcel=parcel.number, reason=reason)


def recalled(order: Order, parcel: Parcel, at: datetime, *, granted: bool) -> list[OrderEvent]:
    """The carrier's answer when it was asked to give a parcel back; where it has collected it, the order goes on."""
    if parcel.state != "recalling":
        return []
    if not granted:
        parcel.state = "booked"
        _too_late(order, parcel)
        return []
    if parcel.tracking is None:  # it had never come to a booking
        parcel.plan_again()
        return []
    return [_recalled(order, parcel, at)]


def _recalled(order: Order, parcel: Parcel, at: datetime) -> OrderEvent:
    currency = parcel.currency or order.currency
    return ParcelRecalled(
        occurred_at=at, order_id=order.order_id, parcel=parcel.number, price=parcel.price, currency=currency
    )


def tracked(order: Order, parcel: Parcel, report: ParcelReport, at: datetime) -> list[OrderEvent]:
    """What follows from the carrier's word on where a parcel is. A delivered parcel has been shipped, told or not."""
    here = parcel.state
    if here == "booked" and report.status == "cancelled":  # by the carrier itself: it is asked again, a few times
        again = parcel.bookings < MOST_BOOKINGS
        return [_recalled(order, parcel, at)] if again else [_refused(order, parcel, "cancelled_by_carrier", at)]
    moved: list[OrderEvent] = []
    if here in AT_CARRIER | {"recalling"} and report.status in LEFT:
        moved = [shipped(order, parcel, at)]
        if here == "recalling":
            _too_late(order, parcel)
    elif here != "shipped":
        return []
    match report.status:
        case "delivered":
            return [*moved, ParcelDelivered(occurred_at=at, order_id=order.order_id, parcel=parcel.number)]
        case "lost":
            lost = ParcelLost(occurred_at=at, order_id=order.order_id, parcel=parcel.number, items=items(parcel))
            return [*moved, lost]
        case _:
            return moved


def overdue(order: Order, parcel: Parcel, now: datetime, give_up_after: timedelta) -> list[OrderEvent]:
    """A parcel that is not where it should be by now is late; told once. Long after that it is given up.

    ``now`` is when it was asked about, by the database's clock. One that was shipped is then taken for lost, one that
    was never collected is called back, one that the carrier never answered about is refused. What a channel ships
    itself stays late: only the channel knows.
    """
    promised = parcel.promised_at or _due(parcel)
    if promised is None or promised > now or parcel.state in FINAL or order.cancellation is not None:
        return []
    if promised + give_up_after <= now:
        match parcel.state:
            case "shipped":
                gone = items(parcel)
                return [ParcelLost(occurred_at=now, order_id=order.order_id, parcel=parcel.number, items=gone)]
            case "booked":
                return give_up(order, parcel, now)
            case "booking":
                return [_refused(order, parcel, "no_answer", now)]
            case _:
                pass
    if parcel.late:
        return []
    return [ParcelLate(occurred_at=now, order_id=order.order_id, parcel=parcel.number, promised_at=promised)]


def _due(parcel: Parcel) -> datetime | None:
    """By when something should have been heard of a parcel without a promise."""
    if parcel.since is None:
        return None
    return parcel.since + (CHANNEL_TIME if parcel.state == "planned" else BOOKING_TIME)


def handed_over(order: Order, number: int | None, at: datetime, tracking: str | None = None) -> list[OrderEvent]:
    """Who ships this order without our carrier has delivered it: parcel ``number``, or all of them. Twice is once."""
    events: list[OrderEvent] = []
    for parcel in order.parcels:
        if parcel.state == "planned" and number in (None, parcel.number):
            parcel.carrier, parcel.tracking = order.channel, tracking
            delivered = ParcelDelivered(occurred_at=at, order_id=order.order_id, parcel=parcel.number)
            events += [shipped(order, parcel, at), delivered]
    return events


def items(parcel: Parcel) -> tuple[ParcelItem, ...]:
    return tuple(ParcelItem(sku=sku, quantity=quantity) for sku, quantity in sorted(parcel.items.items()))


def shipped(order: Order, parcel: Parcel, at: datetime) -> ParcelShipped:
    return ParcelShipped(
        occurred_at=at, order_id=order.order_id, parcel=parcel.number, warehouse=parcel.warehouse,
        carrier=parcel.carrier or order.channel, tracking=parcel.tracking, items=items(parcel),
    )  # fmt: skip


def _too_late(order: Order, parcel: Parcel) -> None:
    """A cancellation that waits for this parcel is refused."""
    if order.cancellation is not None and parcel.number in order.cancellation.parcels:
        order.cancellation = replace(order.cancellation, too_late=parcel.number)
