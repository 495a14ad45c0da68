"""What is known: customers, their identities, and what became of orders; and how outcomes change it. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from services.customer import tiers
from services.customer.points import Entry
from shared.events.customer import (
    BuyerIdentified,
    BuyerRefused,
    ConsentChanged,
    CustomerEvent,
    CustomerRegistered,
    IdentificationEvent,
    PointsReleased,
    PointsSettled,
    TierChanged,
)


@dataclass(frozen=True)
class Identity:
    """By what a buyer is recognised, as a hash; ``collision`` numbers different values that have one hash."""

    kind: str
    hash: bytes
    collision: int = 0


@dataclass(frozen=True, kw_only=True)
class IdentityLinked:
    """From now on who shows ``identity`` is this customer. Stays in this service."""

    identity: Identity
    customer_id: UUID


@dataclass(frozen=True, kw_only=True)
class OrderEnded:
    """The order is over and holds no points. Stays in this service."""

    order_id: UUID


@dataclass(frozen=True, kw_only=True)
class ReviewSet:
    """The tier is to be looked at again at this business time; None: never. Stays in this service."""

    customer_id: UUID
    at: datetime | None


Outcome = IdentificationEvent | CustomerEvent | IdentityLinked | OrderEnded | Entry | ReviewSet


@dataclass(frozen=True)
class Programme:
    """``points_per_unit``: per currency, for a major unit; ``thresholds``: per tier above base, the lowest first."""

    points_per_unit: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])
    thresholds: Mapping[str, int] = field(default_factory=lambda: dict(tiers.THRESHOLDS))


@dataclass
class Customer:
    """``version`` is of what CUSTOMERS says. ``held``, what orders under way have taken, is no part of ``balance``.

    The database, too, keeps both from falling below 0.
    """

    customer_id: UUID
    version: int = 0
    channel: str = ""
    tier: str = tiers.BASE
    guest: bool = False
    balance: int = 0
    held: int = 0
    registered_at: datetime | None = None
    pinned: bool = False
    review_at: datetime | None = None

    @property
    def redeemable(self) -> int:
        return 0 if self.guest else self.balance


@dataclass
class Identification:
    """What became of an order: ``identified``, ``refused``, ``ended`` or ``settled``. Every order seen has one."""

    state: str
    version: int = 0
    customer_id: UUID | None = None
    points_held: int = 0


@dataclass
class Registry:
    """The part of what is known that a batch needs. ``earned`` is there for whom a tier is decided."""

    programme: Programme = field(default_factory=Programme)
    clock: datetime | None = None  # the latest business time settled in, in whole hours; None: nothing ever was
    read_to: datetime | None = None  # business time up to which all settlements have been read; at most `clock`
    clock_moved: bool = False
    customers: dict[UUID, Customer] = field(default_factory=dict[UUID, Customer])
    aliases: dict[UUID, UUID] = field(default_factory=dict[UUID, UUID])
    owners: dict[Identity, UUID] = field(default_factory=dict[Identity, UUID])
    orders: dict[UUID, Identification] = field(default_factory=dict[UUID, Identification])
    earned: dict[UUID, list[tiers.Earned]] = field(default_factory=dict[UUID, list[tiers.Earned]])
    entries: list[Entry] = field(default_factory=list[Entry])
    registered: set[UUID] = field(default_factory=set[UUID])
    touched_customers: set[UUID] = field(default_factory=set[UUID])
    linked: set[Identity] = field(default_factory=set[Identity])
    touched_orders: set[UUID] = field(default_factory=set[UUID])

    def customer(self, customer_id: UUID) -> Customer | None:
        """The customer of this id or alias."""
        return self.customers.get(self.aliases.get(customer_id, customer_id))

    def owner(self, identities: tuple[Identity, ...]) -> Customer | None:
        """Whom the strongest known identity belongs to: where they name several, no two are merged."""
        owners = (self.owners[identity] for identity in identities if identity in self.owners)
        return next((self.customers[owner] for owner in owners if owner in self.customers), None)

    def advance(self, seen: datetime) -> None:
        """Business time has come to ``seen``."""
        clock = tiers.later(self.clock, seen)
        if clock != self.clock:
            self.clock, self.clock_moved = clock, True

    def evolve(self, outcome: Outcome) -> int:
        """Apply ``outcome`` and return the version it gives its order or customer (0: nobody else hears of it)."""
        match outcome:
            case BuyerIdentified() | BuyerRefused() | PointsReleased() | PointsSettled():
                return self._answer(outcome)
            case CustomerRegistered(customer_id=customer):
                self.customers[customer] = Customer(
                    customer, channel=outcome.channel, tier=outcome.tier, guest=outcome.guest,
                    registered_at=outcome.occurred_at,
                )  # fmt: skip
                self.registered.add(customer)
                return self._raise(customer)
            case TierChanged(customer_id=customer):
                self.customers[customer].tier, self.customers[customer].pinned = outcome.tier, outcome.pinned
                return self._raise(customer)
            case ConsentChanged(customer_id=customer):
                return self._raise(customer)
            case IdentityLinked(identity=identity, customer_id=customer):
                self.owners[identity] = customer
                self.linked.add(identity)
            case OrderEnded(order_id=order):
                self.orders.setdefault(order, Identification("ended")).state = "ended"
                self.touched_orders.add(order)
            case ReviewSet(customer_id=customer, at=at):
                self.customers[customer].review_at = at
                self.touched_customers.add(customer)
            case Entry():
                self._enter(outcome)
        return 0

    def _raise(self, customer_id: UUID) -> int:
        self.customers[customer_id].version += 1
        self.touched_customers.add(customer_id)
        return self.customers[customer_id].version

    def _enter(self, entry: Entry) -> None:
        """The balance moves with its entry, and with nothing else."""
        self.customers[entry.customer_id].balance += entry.points
        self.touched_customers.add(entry.customer_id)
        self.entries.append(entry)
        if entry.kind == "earned":
            self.earned.setdefault(entry.customer_id, []).append((entry.occurred_at, entry.points))

    def _answer(self, event: IdentificationEvent) -> int:
        order = self.orders.setdefault(event.order_id, Identification("seen"))
        match event:
            case BuyerIdentified(customer_id=customer, points_held=points):
                order.state, order.customer_id = "identified", customer
                self._hold(order, customer, points)
            case BuyerRefused():
                order.state = "refused"
            case PointsReleased(customer_id=customer, points=points):
                order.customer_id = customer
                self._hold(order, customer, -points)
            case PointsSettled(customer_id=customer, redeemed=points):
                order.state = "settled"
                self._hold(order, customer, -points)
        order.version += 1
        self.touched_orders.add(event.order_id)
        return order.version

    def _hold(self, order: Identification, customer_id: UUID, points: int) -> None:
        if points:
            order.points_held += points
            self.customers[customer_id].held += points
            self.touched_customers.add(customer_id)
