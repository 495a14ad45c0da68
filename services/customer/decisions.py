"""What is decided: who placed an order, and which points are held for it. No I/O, no clock, no personal data."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid5

from shared.events.customer import (
    BuyerIdentified,
    BuyerRefused,
    ConsentChanged,
    CustomerEvent,
    CustomerRegistered,
    IdentificationEvent,
    PointsReleased,
    TierChanged,
)
from shared.events.order import OrderCancelled, OrderEvent, OrderExpired, OrderRejected


@dataclass(frozen=True)
class Identity:
    """By what a buyer is recognised, as a hash; ``collision`` numbers different values that have one hash."""

    kind: str
    hash: bytes
    collision: int = 0


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What an order says about its buyer; ``identities`` strongest first. ``customer_id`` where the store knows it."""

    order_id: UUID
    channel: str
    occurred_at: datetime
    customer_id: UUID | None = None
    identities: tuple[Identity, ...] = ()
    points: int = 0


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """An order whose buyer cannot be read, now or ever."""

    order_id: UUID
    occurred_at: datetime


@dataclass(frozen=True, kw_only=True)
class IdentityLinked:
    """From now on who shows ``identity`` is this customer. Stays in this service."""

    identity: Identity
    customer_id: UUID


@dataclass(frozen=True, kw_only=True)
class OrderEnded:
    """The order is over and held no points. Stays in this service."""

    order_id: UUID


Said = Claim | Unreadable | OrderEvent
Outcome = IdentificationEvent | CustomerEvent | IdentityLinked | OrderEnded


@dataclass
class Customer:
    """``version`` is of what CUSTOMERS says; the database, too, keeps 0 <= held <= balance."""

    customer_id: UUID
    version: int = 0
    channel: str = ""
    tier: str = "base"
    guest: bool = False
    balance: int = 0
    held: int = 0
    registered_at: datetime | None = None

    @property
    def redeemable(self) -> int:
        return 0 if self.guest else self.balance - self.held


@dataclass
class Identification:
    """What became of an order: ``identified``, ``refused`` or ``ended``. Every order seen has one."""

    state: str
    version: int = 0
    customer_id: UUID | None = None
    points_held: int = 0


@dataclass
class Registry:
    """The part of what is known that a batch needs."""

    customers: dict[UUID, Customer] = field(default_factory=dict[UUID, Customer])
    aliases: dict[UUID, UUID] = field(default_factory=dict[UUID, UUID])
    owners: dict[Identity, UUID] = field(default_factory=dict[Identity, UUID])
    orders: dict[UUID, Identification] = field(default_factory=dict[UUID, Identification])
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

    def evolve(self, outcome: Outcome) -> int:
        """Apply ``outcome`` and return the version it gives its order or customer (0: nobody else hears of it)."""
        match outcome:
            case CustomerRegistered(customer_id=customer):
                self.customers[customer] = Customer(
                    customer, channel=outcome.channel, tier=outcome.tier, guest=outcome.guest,
                    registered_at=outcome.occurred_at,
                )  # fmt: skip
                self.registered.add(customer)
                return self._raise(customer)
            case TierChanged(customer_id=customer, tier=tier):
                self.customers[customer].tier = tier
                return self._raise(customer)
            case ConsentChanged(customer_id=customer):
                return self._raise(customer)
            case IdentityLinked(identity=identity, customer_id=customer):
                self.owners[identity] = customer
                self.linked.add(identity)
                return 0
            case BuyerIdentified(customer_id=customer, points_held=points):
                self._hold(customer, points)
                return self._answer(outcome.order_id, "identified", customer, points)
            case BuyerRefused():
                return self._answer(outcome.order_id, "refused", None, 0)
            case PointsReleased(customer_id=customer, points=points):
                self._hold(customer, -points)
                return self._answer(outcome.order_id, "ended", customer, 0)
            case OrderEnded(order_id=order):
                self.orders.setdefault(order, Identification("ended")).state = "ended"
                self.touched_orders.add(order)
                return 0

    def credit(self, customer_id: UUID, points: int) -> Customer:
        """Add ``points`` to a balance, or take them off it (negative)."""
        customer = self.customers[customer_id]
        customer.balance += points
        self.touched_customers.add(customer_id)
        return customer

    def _raise(self, customer_id: UUID) -> int:
        self.customers[customer_id].version += 1
        self.touched_customers.add(customer_id)
        return self.customers[customer_id].version

    def _hold(self, customer_id: UUID, points: int) -> None:
        if points:
            self.customers[customer_id].held += points
            self.touched_customers.add(customer_id)

    def _answer(self, order_id: UUID, state: str, customer_id: UUID | None, points: int) -> int:
        version = self.orders[order_id].version + 1 if order_id in self.orders else 1
        self.orders[order_id] = Identification(state, version, customer_id, points)
        self.touched_orders.add(order_id)
        return version


def decide(registry: Registry, said: Said) -> list[Outcome]:
    """An order gets one answer; asking twice, late or in the wrong order changes nothing."""
    match said:
        case Claim() | Unreadable() if said.order_id in registry.orders:
            return []  # identified, refused, or ended before it was seen
        case Claim():
            return _identify(registry, said)
        case Unreadable():
            return [_refusal(said, "unreadable", "the buyer's data cannot be read")]
        case OrderRejected() | OrderCancelled() | OrderExpired():
            return _end(registry, said)
        case _:
            return []  # a confirmed order keeps its points held until it is settled


def register(
    registry: Registry, identities: tuple[Identity, ...], *, customer_id: UUID, channel: str, occurred_at: datetime
) -> list[Outcome]:
    """A new customer, unless one of the identities is known already."""
    if registry.owner(identities) is not None:
        return []
    event = CustomerRegistered(occurred_at=occurred_at, customer_id=customer_id, channel=channel)
    return [event, *_links(registry, identities, customer_id)]


def _identify(registry: Registry, claim: Claim) -> list[Outcome]:
    if claim.customer_id is not None:
        customer = registry.customer(claim.customer_id)
        if customer is None:
            return [_refusal(claim, "unknown_customer", f"no customer {claim.customer_id}")]
    else:
        customer = registry.owner(claim.identities)
    points = max(claim.points, 0)
    if points and claim.customer_id is None:  # an address that anybody may type must not spend its owner's points
        return [_refusal(claim, "points", "points are redeemed by a known customer only: name the customer_id")]
    if points and points > (customer.redeemable if customer else 0):
        return [_refusal(claim, "points", f"{points} points are more than can be redeemed")]
    outcomes: list[Outcome] = []
    customer_id = customer.customer_id if customer else uuid5(claim.order_id, "customer")
    if customer is None:
        guest = not claim.identities
        outcomes.append(
            CustomerRegistered(
                occurred_at=claim.occurred_at, customer_id=customer_id, channel=claim.channel, guest=guest
            )
        )
    if claim.customer_id is None:  # who is logged in may write any address: it proves nothing
        outcomes += _links(registry, claim.identities, customer_id)
    identified = BuyerIdentified(
        occurred_at=claim.occurred_at, order_id=claim.order_id, customer_id=customer_id,
        recipient_id=uuid5(claim.order_id, "recipient"), new_customer=customer is None, points_held=points,
    )  # fmt: skip
    return [*outcomes, identified]


def _links(registry: Registry, identities: tuple[Identity, ...], customer_id: UUID) -> list[IdentityLinked]:
    """What nobody is known by yet; what is another's stays another's."""
    new = (identity for identity in identities if identity not in registry.owners)
    return [IdentityLinked(identity=identity, customer_id=customer_id) for identity in new]


def _refusal(said: Claim | Unreadable, reason: str, detail: str) -> BuyerRefused:
    return BuyerRefused(occurred_at=said.occurred_at, order_id=said.order_id, reason=reason, detail=detail)


def _end(registry: Registry, event: OrderRejected | OrderCancelled | OrderExpired) -> list[Outcome]:
    order = registry.orders.get(event.order_id)
    if order is None:  # ended before it was seen: the row will say so when it comes
        return [OrderEnded(order_id=event.order_id)]
    if order.state != "identified":
        return []
    customer = registry.customer(order.customer_id) if order.customer_id else None
    if customer is None or not order.points_held:
        return [OrderEnded(order_id=event.order_id)]
    released = PointsReleased(
        occurred_at=event.occurred_at, order_id=event.order_id, customer_id=customer.customer_id,
        points=order.points_held,
    )  # fmt: skip
    return [released]
