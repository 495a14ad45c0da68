"""Calls to the carrier. The recipient is fetched when a parcel is booked, passed on, and not kept.

Unknown is resolved by look-up, then by asking again with the same reference. Each booking of a parcel has a reference
of its own, ``order/parcel/booking``, so that a notice of one that was undone moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.order import store
from services.order.shipping import store as parcels
from services.order.shipping.carrier import Carrier, CarrierRefusedError, CarrierUnavailableError, Recipient
from services.order.shipping.decisions import Booking, ParcelReport, booked, overdue, recalled, refused, tracked
from services.order.state import Order, Parcel
from shared.calls import Call, Calls
from shared.clients import ServiceClient, UnavailableError
from shared.events.order import OrderEvent
from shared.messages import Cause
from shared.postgres import Database, Row, Tx
from shared.telemetry import log
from shared.tracing import Trace, current_trace


@dataclass(frozen=True)
class Outcome:
    """What came of one call, or what a notice says, of a parcel; to be stored. ``bookings`` says of which booking.

    ``asked_at``, of the database's clock, is there where the parcel is late unless the carrier said otherwise.
    """

    order_id: UUID
    number: int
    bookings: int
    booking: Booking | None = None
    refusal: str | None = None
    granted: bool | None = None
    report: ParcelReport | None = None
    asked_at: datetime | None = None

    @property
    def reference(self) -> str:
        return reference_of(self.order_id, self.number, self.bookings)


def reference_of(order_id: UUID, number: int, bookings: int) -> str:
    return f"{order_id}/{number}/{bookings}"


def parse(reference: str) -> tuple[UUID, int, int] | None:
    """Order, parcel and booking of a reference; None if it is none of ours."""
    try:
        order_id, number, bookings = reference.split("/")
        return UUID(order_id), int(number), int(bookings)
    except ValueError:
        return None


class ParcelCalls:
    """Books, recalls and looks up the parcels that are due; late for ``give_up_after``, one is taken for lost."""

    def __init__(self, database: Database, carrier: Carrier, customers: ServiceClient, give_up_after: timedelta):
        self._database = database
        self._carrier = carrier
        self._customers = customers
        self._give_up_after = give_up_after
        self.calls = Calls[Outcome]("parcels", self._claim, self._store)

    async def close(self) -> None:
        await self.calls.close()
        await self._carrier.close()
        await self._customers.close()

    async def _claim(self, room: int) -> Sequence[Call[Outcome]]:
        async with self._database.transaction() as tx:
            return [self._ask(row) for row in await parcels.claim(tx, room)]

    async def _store(self, outcomes: list[Outcome]) -> None:
        for reference in await apply(self._database, outcomes, self._give_up_after):
            try:
                undone = await self._carrier.recall(reference)
                log.warning("a booking that nobody wants", carrier_reference=reference, recalled=undone)
            except CarrierUnavailableError as unknown:
                log.error("a booking that nobody wants", carrier_reference=reference, reason=str(unknown))

    async def _ask(self, row: Row) -> Outcome | None:
        current_trace.set(Trace.parse(row["traceparent"]))
        order_id, number, bookings = row["order_id"], row["number"], row["bookings"]
        reference = reference_of(order_id, number, bookings)
        try:
            match row["state"]:
                case "booking":
                    return await self._book(row, reference)
                case "recalling":
                    booking, granted = await self._recall(row, reference)
                    return Outcome(order_id, number, bookings, booking, granted=granted)
                case "planned":  # of a channel that ships its orders itself, and has not said that it did
                    await self._again(row, tracking=True)
                    return Outcome(order_id, number, bookings, asked_at=row["now"])
                case _:
                    booking, report = await self._carrier.look_up(reference) or (None, None)
                    await self._again(row, tracking=True)
                    return Outcome(order_id, number, bookings, booking, report=report, asked_at=row["now"])
        except (CarrierUnavailableError, UnavailableError) as unknown:
            log.warning("parcel: no answer", parcel=reference, attempt=row["attempts"], reason=str(unknown))
            await self._again(row, tracking=False)
            return Outcome(order_id, number, bookings, asked_at=row["now"])

    async def _book(self, row: Row, reference: str) -> Outcome:
        order_id, number, bookings = row["order_id"], row["number"], row["bookings"]
        if row["attempts"] > 1 and (found := await self._carrier.look_up(reference)) is not None:
            return Outcome(order_id, number, bookings, booking=found[0], report=found[1])
        answer = await self._customers.get(f"/recipients/{row['recipient_id']}")
        if not answer.is_success:
            return Outcome(order_id, number, bookings, refusal="recipient_unknown")
        recipient = Recipient.model_validate_json(answer.content)
        try:
            booking = await self._carrier.book(
                reference, Parcel(number, row["warehouse"], row["items"]), recipient
            )  # fmt: skip
        except CarrierRefusedError as error:
            return Outcome(order_id, number, bookings, refusal=error.reason)
        return Outcome(order_id, number, bookings, booking=booking)

    async def _recall(self, row: Row, reference: str) -> tuple[Booking | None, bool]:
        """The booking, where it was not known yet, and whether it is undone."""
        known: str | None = row["carrier_reference"]
        if known is not None:
            return None, await self._carrier.recall(known)
        found = await self._carrier.look_up(reference)
        if found is None:
            return None, True
        return found[0], await self._carrier.recall(found[0].reference)

    async def _again(self, row: Row, *, tracking: bool) -> None:
        async with self._database.transaction() as tx:
            await parcels.again(tx, row, tracking=tracking)


async def apply(database: Database, outcomes: Sequence[Outcome], give_up_after: timedelta) -> list[str]:
    """Let orders go on from what became of their parcels.

    Returns the carrier's references of bookings that nobody wants any more: made after they had been given up.
    """
    strays: list[str] = []
    async with database.transaction() as tx:
        orders = await store.load(tx, [one.order_id for one in outcomes], with_lines=any(map(_needs_lines, outcomes)))
        now = datetime.now(UTC)
        for outcome in outcomes:
            order = orders.by_id.get(outcome.order_id)
            parcel = order.parcel(outcome.number) if order else None
            if order is None or parcel is None or parcel.bookings != outcome.bookings or _given_up(parcel, outcome):
                log.warning("word of a booking that is not wanted", parcel=outcome.reference)
                if outcome.booking is not None and order is not None:
                    strays.append(outcome.booking.reference)
                continue
            before = (replace(parcel), order.version, order.cancellation)
            _happen(tx, orders, order, parcel, outcome, now, give_up_after)
            if (parcel, order.version, order.cancellation) != before:
                orders.heard.add(order.order_id)
        await store.save(tx, orders)
    return strays


def _given_up(parcel: Parcel, outcome: Outcome) -> bool:
    """Whether this is the first word of a booking that was waited for until it was taken for refused."""
    return parcel.state == "refused" and parcel.carrier_reference is None and outcome.booking is not None


def _needs_lines(outcome: Outcome) -> bool:
    """Whether something may have to be paid back."""
    lost = outcome.report is not None and outcome.report.status == "lost"
    return lost or outcome.refusal is not None or outcome.granted is not None or outcome.asked_at is not None


def _happen(
    tx: Tx,
    orders: store.Orders,
    order: Order,
    parcel: Parcel,
    outcome: Outcome,
    now: datetime,
    give_up_after: timedelta,
) -> None:
    at = min(outcome.report.at, now) if outcome.report else now

    def cause(why: str) -> Cause:
        return orders.cause(order.order_id, f"parcel/{outcome.reference}/{why}/{order.version}")

    if outcome.booking is not None:  # a notice may be the first that we hear of the booking
        orders.happen(tx, order, booked(order, parcel, outcome.booking, at), cause("booked"), at)
    orders.happen(tx, order, _follow(order, parcel, outcome, at), cause("told"), at)
    if outcome.asked_at is not None:
        late = overdue(order, parcel, outcome.asked_at, give_up_after)
        orders.happen(tx, order, late, cause("overdue"), outcome.asked_at)


def _follow(order: Order, parcel: Parcel, outcome: Outcome, at: datetime) -> list[OrderEvent]:
    if outcome.refusal is not None:
        return refused(order, parcel, outcome.refusal, at)
    if outcome.granted is not None:
        return recalled(order, parcel, at, granted=outcome.granted)
    return tracked(order, parcel, outcome.report, at) if outcome.report is not None else []
