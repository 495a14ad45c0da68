"""The outside world in memory: a bank and a carrier with books of their own, and a wire on which answers get lost.

They keep to the protocols of ``services.order.payments.provider`` and ``services.order.shipping.carrier`` as their
sandboxes do: whatever is asked twice is done once, and what became of it is the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, TypeVar
from uuid import UUID

import orjson
from pydantic import TypeAdapter

from services.order.payments.decisions import PaymentReport
from services.order.payments.provider import UnknownOutcomeError
from services.order.shipping.carrier import CarrierRefusedError, CarrierUnavailableError, Recipient
from services.order.shipping.decisions import Booking, ParcelReport
from services.order.state import Parcel
from shared.clients import ServiceClient, UnavailableError
from shared.http import Answer
from shared.money import round_money

T = TypeVar("T")

Weather = Literal["clear", "unheard", "unanswered", "slow"]
WEATHERS: tuple[Weather, ...] = ("clear", "unheard", "unanswered", "slow")
PROMISE = timedelta(days=2)


class Wire:
    """How calls fare: ``clear``; ``unheard``, lost on the way there; ``unanswered``, lost on the way back; ``slow``,
    held up until ``go_on``, and then as the weather is.
    """

    def __init__(self, broken: type[Exception]):
        self.weather: Weather = "clear"
        self._broken = broken
        self._held_up: list[asyncio.Event] = []

    @property
    def held_up(self) -> int:
        """Calls on their way."""
        return len(self._held_up)

    def go_on(self) -> None:
        """Let what is held up arrive now, and be answered."""
        for call in self._held_up:
            call.set()
        self._held_up.clear()

    def cut(self) -> None:
        """What is held up never arrives; whoever waits for it has been ended."""
        self._held_up.clear()

    async def carry(self, act: Callable[[], T]) -> T:
        weather = self.weather
        if weather == "slow":
            self._held_up.append(let_go := asyncio.Event())
            await let_go.wait()
            weather = self.weather
        if weather == "unheard":
            raise self._broken("no connection")
        try:
            return act()
        finally:
            if weather == "unanswered":
                raise self._broken("no answer came") from None


@dataclass
class Charge:
    """A payment in the bank's books. ``nos`` of its refunds are declined before one goes through."""

    reference: str
    amount: Decimal
    status: str
    nos: int = 0
    refunded: Decimal = Decimal(0)

    @property
    def id(self) -> str:
        return f"pay_{self.reference}"

    @property
    def open(self) -> bool:
        return self.status in ("pending", "requires_action")

    def said(self) -> dict[str, Any]:
        fee = round_money(self.amount * Decimal("0.014"), "EUR") if self.status == "captured" else 0
        url = "https://bank.example/3ds" if self.status == "requires_action" else None
        return {"reference": self.reference, "status": self.status, "amount": f"{self.amount:f}", "id": self.id,
                "fee": f"{fee:f}", "url": url}  # fmt: skip


def _report(said: dict[str, Any]) -> PaymentReport:
    return PaymentReport(
        said["status"], Decimal(said["amount"]), said["id"], redirect_url=said["url"], fee=Decimal(said["fee"])
    )


class Bank:
    """A payment provider. Tokens say what becomes of a charge, as ``captured``, ``captured/2`` (its first two refunds
    are declined), ``less`` (something else is captured), ``declined``, ``pending``, ``requires_action``.

    ``notices`` are what it has to tell, final states only; who delivers them decides when and how often.
    """

    def __init__(self) -> None:
        self.wire = Wire(UnknownOutcomeError)
        self.charges: dict[str, Charge] = {}
        self.notices: list[bytes] = []
        self._refunds: dict[UUID, bool] = {}  # the answer given to a key

    async def charge(self, payment_id: UUID, token: str, amount: Decimal, currency: str) -> PaymentReport:
        return await self.wire.carry(lambda: _report(self._charged(str(payment_id), token, amount).said()))

    async def look_up(self, payment_id: UUID) -> PaymentReport | None:
        def found() -> PaymentReport | None:
            known = self.charges.get(str(payment_id))
            return _report(known.said()) if known else None

        return await self.wire.carry(found)

    async def payments_since(self, cursor: str | None) -> tuple[list[tuple[str, PaymentReport]], str | None]:
        """One payment a page."""

        def page() -> tuple[list[tuple[str, PaymentReport]], str | None]:
            place, there = int(cursor or 0), list(self.charges.values())
            found = [(one.reference, _report(one.said())) for one in there[place : place + 1]]
            return found, str(place + 1) if place + 1 < len(there) else None

        return await self.wire.carry(page)

    async def void(self, payment_id: UUID, provider_reference: str) -> PaymentReport:
        def voided() -> PaymentReport:
            one = self.charges[str(payment_id)]
            self.comes_to(one, "cancelled")
            return _report(one.said())

        return await self.wire.carry(voided)

    async def refund(self, refund_id: UUID, key: UUID, provider_reference: str, amount: Decimal) -> bool:
        return await self.wire.carry(lambda: self._refunded(key, provider_reference.removeprefix("pay_"), amount))

    def webhook(self, headers: dict[str, str], body: bytes) -> tuple[UUID, PaymentReport] | None:
        said = orjson.loads(body)
        return UUID(said["reference"]), _report(said)

    async def close(self) -> None: ...

    def comes_to(self, one: Charge, status: str) -> None:
        """What was open becomes final; what is final stays so."""
        if one.open:
            one.status = status
            self.notices.append(orjson.dumps(one.said()))

    def log(self) -> list[dict[str, Any]]:
        """Its books, as ``bench.evidence`` reads a provider's."""
        return [
            {"reference": one.reference, "status": one.status, "amount": f"{one.amount:f}",
             "refunded": f"{one.refunded:f}"}
            for one in self.charges.values()
        ]  # fmt: skip

    def _charged(self, reference: str, token: str, amount: Decimal) -> Charge:
        if reference in self.charges:
            return self.charges[reference]
        fate, _, nos = token.partition("/")
        if fate == "less":
            fate, amount = "captured", round_money(amount / 2, "EUR")
        one = self.charges[reference] = Charge(reference, amount, "pending", int(nos or 0))
        if fate in ("captured", "declined"):
            self.comes_to(one, fate)
        else:
            one.status = fate
        return one

    def _refunded(self, key: UUID, reference: str, amount: Decimal) -> bool:
        if key in self._refunds:
            return self._refunds[key]
        one = self.charges[reference]
        if one.status != "captured" or amount > one.amount - one.refunded:
            raise UnknownOutcomeError("above what is refundable")
        self._refunds[key] = one.nos == 0
        if one.nos:
            one.nos -= 1
        else:
            one.refunded += amount
        return self._refunds[key]


@dataclass
class Shipment:
    """A parcel in the carrier's books: booked, shipped, delivered, lost or cancelled."""

    reference: str
    number: int
    status: str = "booked"

    def said(self) -> tuple[Booking, ParcelReport]:
        now = datetime.now(UTC)
        label = Booking(
            "post", f"par_{self.number}", f"TRACK{self.number}", now + PROMISE, Decimal("4.20") + self.number, "EUR"
        )
        return label, ParcelReport(self.status, now)


_LABEL, _WHERE = TypeAdapter(Booking), TypeAdapter(ParcelReport)
STEPS = {"shipped": ("booked",), "delivered": ("booked", "shipped"), "lost": ("booked", "shipped"),
         "cancelled": ("booked",)}  # fmt: skip


class Haulier:
    """A carrier. It does not go to those whose order and warehouse are in ``unserved``.

    ``notices`` are what it has to tell: its words of one reference as they were at the time.
    """

    def __init__(self) -> None:
        self.wire = Wire(CarrierUnavailableError)
        self.shipments: dict[str, Shipment] = {}
        self.notices: list[bytes] = []
        self.unserved: set[tuple[str, str]] = set()

    async def book(self, reference: str, parcel: Parcel, recipient: Recipient) -> Booking:
        def booked() -> Booking:
            if reference not in self.shipments:
                if (reference.split("/")[0], parcel.warehouse) in self.unserved:
                    raise CarrierRefusedError("address_not_served")
                self.shipments[reference] = Shipment(reference, len(self.shipments))
            return self.shipments[reference].said()[0]

        return await self.wire.carry(booked)

    async def look_up(self, reference: str) -> tuple[Booking, ParcelReport] | None:
        def found() -> tuple[Booking, ParcelReport] | None:
            one = self.shipments.get(reference)
            return one.said() if one else None

        return await self.wire.carry(found)

    async def recall(self, carrier_reference: str) -> bool:
        def given_back() -> bool:
            one = next(one for one in self.shipments.values() if f"par_{one.number}" == carrier_reference)
            if one.status == "booked":
                one.status = "cancelled"
            return one.status == "cancelled"

        return await self.wire.carry(given_back)

    def notice(self, headers: dict[str, str], body: bytes) -> tuple[str, Booking, ParcelReport] | None:
        told = orjson.loads(body)
        return told["reference"], _LABEL.validate_python(told["label"]), _WHERE.validate_python(told["where"])

    async def close(self) -> None: ...

    def moves(self, one: Shipment, status: str) -> None:
        """What can happen to it happens; the rest does not."""
        if one.status in STEPS[status]:
            one.status = status
            label, where = one.said()
            self.notices.append(orjson.dumps({"reference": one.reference, "label": label, "where": where}, default=str))

    def log(self) -> list[dict[str, Any]]:
        """Its books, as ``bench.evidence`` reads a carrier's."""
        return [
            {"reference": one.reference, "status": one.status, "tracking_number": one.said()[0].tracking,
             "price": {"amount": f"{one.said()[0].price:f}"}}
            for one in self.shipments.values()
        ]  # fmt: skip


@dataclass
class AddressBook(ServiceClient):
    """The customer service, asked where a parcel goes; it may be ``away``."""

    away: bool = False
    _answer: Answer = field(
        default_factory=lambda: Answer(
            "GET", 200, b'{"name": "Anna Ash", "street": "Elm Row 1", "city": "Ulm", "country": "DE"}'
        )
    )

    async def get(self, path: str, **params: str) -> Answer:
        if self.away:
            raise UnavailableError(path)
        return self._answer

    async def close(self) -> None: ...
