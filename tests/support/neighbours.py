"""The other services in memory: a log, and inventory, customer and pricing who read it when they are told to.

They decide as the real ones do, with their own decisions; what is stored is what those decide upon.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from bench.evidence import Logged, Rows
from services.customer.decisions import Claim, Said
from services.customer.decisions import decide as decide_customer
from services.customer.points import Entry
from services.customer.registry import Registry
from services.inventory.decisions import Cost, Level, Stock, Warehouse
from services.inventory.decisions import decide as decide_stock
from services.pricing.decisions import Book
from services.pricing.decisions import decide as decide_price
from services.pricing.discounts import Coupon
from services.pricing.rules import ListPrice, Rules
from shared.events.customer import (
    BuyerIdentified,
    BuyerRefused,
    CustomerRegistered,
    PointsReleased,
    PointsSettled,
    TierChanged,
)
from shared.events.inventory import StockIssued
from shared.events.order import BuyerSealed, OrderPlaced, OrderSettled
from shared.messages import Event, Message, Topic, event_id
from shared.topics import CUSTOMERS, HOLDS, IDENTIFICATIONS, INTAKE, ORDERS, QUOTES
from tests.support.orders import ANNA

Said_ = Message[Any]
KERNEL: Mapping[str, Rows] = {"outbox": [{"rows": 0}], "offsets": [], "inbox": []}


class Log:
    """What was said, per topic and key in order; everybody reads it as far as he wants to."""

    def __init__(self) -> None:
        self.ids: set[UUID] = set()
        self.messages: list[Said_] = []
        self._of: dict[tuple[str, str], list[Said_]] = defaultdict(list[Said_])

    def append(self, topic: Topic[Any], event: Event, id_: UUID, sequence: int) -> None:
        """One more event; its sequence follows the last one of its key, and its id is new."""
        own = self._of[topic.name, topic.key_of(event)]
        assert sequence == len(own) + 1, f"{topic.name}: sequence {sequence} after {len(own)}: {event}"
        assert id_ not in self.ids, f"{topic.name}: said twice: {event}"
        own.append(
            Message(
                id=id_, correlation_id="test", event=event, topic=topic.name, key=topic.key_of(event),
                sequence=sequence, recorded_at=datetime.now(UTC), offset=len(self.messages),
            )
        )  # fmt: skip
        self.messages.append(own[-1])
        self.ids.add(id_)

    def of(self, topic: Topic[Any], key: UUID) -> Sequence[Said_]:
        return self._of[topic.name, str(key)]

    def logged(self) -> Sequence[Logged]:
        """As ``bench.evidence`` reads Kafka."""
        return [
            Logged(one.topic, 0, one.offset, one.key, type(one.event).__name__, str(one.id), one.sequence,
                   one.recorded_at.date().isoformat())
            for one in self.messages
        ]  # fmt: skip


class Reader(Protocol):
    """A service that reads about one order at a time; returns whether there was anything to read."""

    def read(self, order_id: UUID) -> bool: ...
    def tables(self) -> dict[str, Rows]: ...


@dataclass
class _Reading:
    """How far a service has read."""

    log: Log
    _read: Counter[tuple[str, UUID]] = field(default_factory=Counter[tuple[str, UUID]])
    _spoke: Counter[UUID] = field(default_factory=Counter[UUID])

    def next(self, topic: Topic[Any], order_id: UUID) -> Said_ | None:
        there, place = self.log.of(topic, order_id), (topic.name, order_id)
        if self._read[place] == len(there):
            return None
        self._read[place] += 1
        return there[self._read[place] - 1]

    def say(self, topic: Topic[Any], event: Event, sequence: int, cause: Said_) -> None:
        self._spoke[cause.id] += 1
        type_ = topic.type_of(type(event))
        id_ = event_id(cause.id, type_, topic.key_of(event), self._spoke[cause.id])
        self.log.append(topic, event, id_, sequence)


class Inventory(_Reading):
    """RED-LAMPs in Berlin and BLUE-CUPs in Graz, some of each also in Cork: few enough to be short of."""

    def __init__(self, log: Log):
        super().__init__(log)
        levels = {
            "RED-LAMP": {"BER": Level(12), "CRK": Level(1)},
            "BLUE-CUP": {"GRZ": Level(18), "CRK": Level(2)},
        }
        self.stock = Stock(
            (Warehouse("BER", "DE", 1), Warehouse("GRZ", "AT", 2), Warehouse("CRK", "IE", 3)), dict.fromkeys(levels, 0),
            levels, {"RED-LAMP": Cost(Decimal("12.345"), "EUR"), "BLUE-CUP": Cost()},
        )  # fmt: skip
        self._moved = Counter(
            {(sku, code): level.on_hand for sku, there in levels.items() for code, level in there.items()}
        )

    def read(self, order_id: UUID) -> bool:
        if (message := self.next(ORDERS, order_id)) is None:
            return False
        for event in decide_stock(self.stock, message.event):
            if isinstance(event, StockIssued):
                self._moved.subtract({(one.sku, one.warehouse): one.quantity for one in event.lines})
            self.say(HOLDS, event, self.stock.evolve(event), message)
        return True

    def tables(self) -> dict[str, Rows]:
        held: Counter[tuple[str, str]] = Counter()
        for hold in self.stock.holds.values():
            held.update(hold.allocated)
        return {
            "levels": [
                {"sku": sku, "warehouse": code, "on_hand": level.on_hand, "reserved": level.reserved,
                 "moved": self._moved[sku, code], "held": held[sku, code]}
                for sku, there in self.stock.levels.items() for code, level in there.items()
            ],
            "holds": [
                {"order_id": str(id_), "state": one.state, "version": one.version, "goods": _goods(one.allocated)}
                for id_, one in self.stock.holds.items()
            ],
            "items": [],
        }  # fmt: skip


def _goods(allocated: Mapping[tuple[str, str], int]) -> str | None:
    units: Counter[str] = Counter()
    for (sku, _), quantity in allocated.items():
        units[sku] += quantity
    return ", ".join(f"{sku} {units[sku]}" for sku in sorted(units)) or None


class Customers(_Reading):
    """Anna has 5,000 points; whoever does not name himself is a guest."""

    def __init__(self, log: Log):
        super().__init__(log)
        self.registry = Registry()
        now = datetime.now(UTC)
        registered = CustomerRegistered(occurred_at=now, customer_id=ANNA, channel="shop")
        self.log.append(CUSTOMERS, registered, ANNA, self.registry.evolve(registered))
        welcome = Entry(entry_id=ANNA, customer_id=ANNA, points=5000, kind="goodwill", occurred_at=now)
        self.registry.evolve(welcome)

    def read(self, order_id: UUID) -> bool:
        message = self.next(INTAKE, order_id) or self.next(ORDERS, order_id)
        if message is None:
            return False
        said: Said = message.event
        if isinstance(box := message.event, BuyerSealed):
            said = Claim(
                order_id=order_id, channel=box.channel, occurred_at=box.occurred_at, customer_id=box.customer_id,
                points=box.points,
            )  # fmt: skip
        if isinstance(said, OrderSettled):
            self.registry.advance(said.occurred_at)
        for outcome in decide_customer(self.registry, said):
            sequence = self.registry.evolve(outcome)
            match outcome:
                case BuyerIdentified() | BuyerRefused() | PointsReleased() | PointsSettled():
                    self.say(IDENTIFICATIONS, outcome, sequence, message)
                case CustomerRegistered() | TierChanged():
                    self.say(CUSTOMERS, outcome, sequence, message)
                case _:
                    pass
        return True

    def tables(self) -> dict[str, Rows]:
        entered: Counter[UUID] = Counter()
        for entry in self.registry.entries:
            entered[entry.customer_id] += entry.points
        held: Counter[UUID | None] = Counter()
        for one in self.registry.orders.values():
            held[one.customer_id] += one.points_held if one.state == "identified" else 0
        return {
            "identifications": [
                {"order_id": str(id_), "state": one.state, "version": one.version, "points_held": one.points_held}
                for id_, one in self.registry.orders.items()
            ],
            "customers": [
                {"customer_id": str(id_), "version": one.version, "points_balance": one.balance,
                 "points_held": one.held, "held_for_orders": held[id_], "entered": entered[id_]}
                for id_, one in self.registry.customers.items()
            ],
        }  # fmt: skip


PRICES = {"RED-LAMP": Decimal("34.67"), "BLUE-CUP": Decimal("5.50")}


class Pricing(_Reading):
    """One price each; SPRING is 10 % off, three times only, and nobody knows another coupon."""

    def __init__(self, log: Log):
        super().__init__(log)
        self._prices: dict[tuple[str, str, datetime], ListPrice] = {}
        tax = {("DE", "standard"): ((datetime(2007, 1, 1, tzinfo=UTC).date(), Decimal(19)),)}
        spring = Coupon("SPRING", percent=Decimal(10), limit_total=3)
        self.book = Book(Rules(self._prices, coupons={"SPRING": spring}, tax_rates=tax))

    def read(self, order_id: UUID) -> bool:
        if (message := self.next(ORDERS, order_id)) is None:
            return False
        if isinstance(placed := message.event, OrderPlaced):
            self.book.buyers[order_id] = placed.customer_id
            for sku, price in PRICES.items():
                self._prices[sku, placed.currency, placed.occurred_at] = ListPrice(price, "main")
        for event in decide_price(self.book, message.event, message.recorded_at):
            self.say(QUOTES, event, self.book.evolve(event), message)
        self.book.note(message.event)
        return True

    def tables(self) -> dict[str, Rows]:
        uses = self.book.uses
        return {
            "order_prices": [
                {"order_id": str(id_), "state": one.state, "version": one.version, "coupon": one.coupon}
                for id_, one in self.book.orders.items()
            ],
            "coupon_uses": [{"coupon": code, "order_id": str(id_), "state": uses[code, id_]} for code, id_ in uses],
            "coupons": [
                {"code": code, "used": one.used,
                 "held": sum(there == code and state == "held" for (there, _), state in uses.items())}
                for code, one in self.book.rules.coupons.items()
            ],
            "quotes": [],
            "prices": [],
        }  # fmt: skip
