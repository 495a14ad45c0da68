"""What is decided: who placed an order, which points it takes and earns, and what tier that makes.

No I/O, no clock, no personal data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID, uuid5

from services.customer import points, tiers
from services.customer.points import Entry, Kind
from services.customer.registry import (
    Customer,
    Identification,
    Identity,
    IdentityLinked,
    OrderEnded,
    Outcome,
    Registry,
    ReviewSet,
)
from shared.events.customer import (
    BuyerIdentified,
    BuyerRefused,
    CustomerRegistered,
    PointsReleased,
    PointsSettled,
    TierChanged,
)
from shared.events.order import (
    OrderCancelled,
    OrderEvent,
    OrderExpired,
    OrderLinesCancelled,
    OrderRejected,
    OrderRestated,
    OrderSettled,
)


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


Said = Claim | Unreadable | OrderEvent

ENDED_UNSEEN = Identification("ended")


def dated(event: OrderEvent, recorded_at: datetime) -> OrderEvent:
    """A settlement counts when it was recorded at the latest: no import earns or decides anything in the future."""
    if isinstance(event, OrderSettled) and event.occurred_at > recorded_at:
        return event.model_copy(update={"occurred_at": recorded_at})
    return event


def decide(registry: Registry, said: Said) -> list[Outcome]:
    """An order gets one answer; asking twice, late or in the wrong order changes nothing."""
    match said:
        case Claim() if registry.orders.get(said.order_id) == ENDED_UNSEEN:
            return _identify_late(registry, said)
        case Claim() | Unreadable() if said.order_id in registry.orders:
            return []  # identified or refused
        case Claim():
            return _identify(registry, said)
        case Unreadable():
            return [_refusal(said, "unreadable", "the buyer's data cannot be read")]
        case OrderRejected() | OrderCancelled() | OrderExpired():
            return _end(registry, said)
        case OrderLinesCancelled():
            return _give_part_back(registry, said)
        case OrderSettled():
            return _settle(registry, said)
        case OrderRestated():
            return _put_right(registry, said)
        case _:
            return []


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
    wanted = max(claim.points, 0)
    if wanted and claim.customer_id is None:  # an address that anybody may type must not spend its owner's points
        return [_refusal(claim, "points", "points are redeemed by a known customer only: name the customer_id")]
    if wanted and wanted > (customer.redeemable if customer else 0):
        return [_refusal(claim, "points", f"{wanted} points are more than can be redeemed")]
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
        recipient_id=uuid5(claim.order_id, "recipient"), new_customer=customer is None, points_held=wanted,
    )  # fmt: skip
    return [*outcomes, identified, *_entry(customer_id, claim, -wanted, "redeemed", 1)]


def _identify_late(registry: Registry, claim: Claim) -> list[Outcome]:
    """The order ended before its buyer was seen, who is to be told of that; points are held no more."""
    outcomes = _identify(registry, replace(claim, points=0))
    refused = any(isinstance(outcome, BuyerRefused) for outcome in outcomes)
    return [] if refused else [*outcomes, OrderEnded(order_id=claim.order_id)]


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
    return [*_release(registry, order, event, order.points_held, "released"), OrderEnded(order_id=event.order_id)]


def _give_part_back(registry: Registry, event: OrderLinesCancelled) -> list[Outcome]:
    order = registry.orders.get(event.order_id)
    if order is None or order.state != "identified":
        return []
    return _release(registry, order, event, min(event.points, order.points_held), "part_released")


def _put_right(registry: Registry, event: OrderRestated) -> list[Outcome]:
    """Give back what the order holds beyond what it says. Missing points are not taken: they may be spent by now."""
    order = registry.orders.get(event.order_id)
    if order is None or event.points is None or order.state not in ("identified", "ended"):
        return []
    # Never "released", which there is once per order: it may have been given back before, and taken again.
    released = _release(registry, order, event, order.points_held - event.points, "part_released")
    over = event.state in ("rejected", "cancelled", "expired") and order.state == "identified"
    return [*released, OrderEnded(order_id=event.order_id)] if over else released


def _release(registry: Registry, order: Identification, event: OrderEvent, number: int, kind: Kind) -> list[Outcome]:
    customer = registry.customer(order.customer_id) if order.customer_id else None
    if customer is None or number <= 0:
        return []
    released = PointsReleased(
        occurred_at=event.occurred_at, order_id=event.order_id, customer_id=customer.customer_id, points=number
    )
    return [released, *_entry(customer.customer_id, event, number, kind, order.version + 1)]


def _settle(registry: Registry, event: OrderSettled) -> list[Outcome]:
    """Every settled order is answered, also with nothing: it waits for that. ``event`` is ``dated``."""
    order = registry.orders.get(event.order_id, Identification("seen"))
    if order.state == "settled":
        return []
    customer = registry.customer(order.customer_id) if order.state == "identified" and order.customer_id else None
    if customer is None or customer.guest:
        number = 0
    else:
        number = points.earned(event.amount, event.currency, registry.programme.points_per_unit)
    settled = PointsSettled(
        occurred_at=event.occurred_at, order_id=event.order_id, earned=number,
        customer_id=customer.customer_id if customer else event.customer_id,
        redeemed=order.points_held if customer else 0,
    )  # fmt: skip
    if customer is None:
        return [settled]
    entry = _entry(customer.customer_id, event, number, "earned", order.version + 1)
    return [settled, *entry, *_rise(registry, customer, event.occurred_at, entry)]


def _entry(customer_id: UUID, said: Claim | OrderEvent, number: int, kind: Kind, version: int) -> list[Entry]:
    """The entry of what the order's answer ``version`` takes, gives back or earns; none for 0 points."""
    entry = Entry(
        entry_id=uuid5(said.order_id, f"points/{kind}/{version}"), customer_id=customer_id, points=number, kind=kind,
        occurred_at=said.occurred_at, order_id=said.order_id,
    )  # fmt: skip
    return [entry] if number else []


def give(customer: Customer, number: int, *, entry_id: UUID, occurred_at: datetime) -> Entry | None:
    """Goodwill, or points taken back (negative); None when more is taken than there is."""
    if customer.redeemable + number < 0:
        return None
    return Entry(
        entry_id=entry_id, customer_id=customer.customer_id, points=number, kind="goodwill", occurred_at=occurred_at
    )


def pin_tier(customer: Customer, tier: str, at: datetime) -> list[Outcome]:
    """Put a customer into a tier, whatever the points say; asked twice, said once."""
    if (customer.tier, customer.pinned) == (tier, True):
        return []
    changed = TierChanged(occurred_at=at, customer_id=customer.customer_id, tier=tier, pinned=True)
    return [changed, *_review(customer, None)]


def unpin_tier(registry: Registry, customer: Customer, at: datetime) -> list[Outcome]:
    """From now on points decide; that is said even if they give the same tier."""
    if not customer.pinned:
        return []
    stands = _standing(registry, customer, registry.read_to or registry.clock or at)
    changed = TierChanged(occurred_at=at, customer_id=customer.customer_id, tier=stands.tier)
    return [changed, *_review(customer, stands.review_at)]


def review_tier(registry: Registry, customer: Customer) -> list[Outcome]:
    """The tier as of the business time at which points that held it up grew old, once all has been read up to then.

    This alone lowers a tier: that time passes in one partition says nothing of what others hold of this customer.
    """
    due = customer.review_at
    if due is None or registry.read_to is None or due > registry.read_to:
        return []
    return _put(customer, _standing(registry, customer, due), due)


def _rise(registry: Registry, customer: Customer, occurred_at: datetime, entry: Sequence[Entry]) -> list[Outcome]:
    """What the ``entry`` of a settlement makes of the tier: it may rise at once, and falls by ``review_tier`` only.

    Judged as of the latest that is known of the customer and of what has been read, so that late news does not raise
    a tier by points that were never there within one year.
    """
    if customer.pinned or customer.guest:
        return []
    known = [when for when, _ in registry.earned.get(customer.customer_id, ())]
    at = max([occurred_at, registry.read_to or occurred_at, *known])
    stands = _standing(registry, customer, at, entry)
    order = [tiers.BASE, *registry.programme.thresholds]
    falls = customer.tier in order and order.index(stands.tier) < order.index(customer.tier)
    if falls and customer.review_at is not None:
        return []
    return _put(customer, stands, at)


def _put(customer: Customer, stands: tiers.Standing, at: datetime) -> list[Outcome]:
    changed = TierChanged(occurred_at=at, customer_id=customer.customer_id, tier=stands.tier)
    return [*([changed] if stands.tier != customer.tier else []), *_review(customer, stands.review_at)]


def _standing(registry: Registry, customer: Customer, at: datetime, more: Sequence[Entry] = ()) -> tiers.Standing:
    earned = [*registry.earned.get(customer.customer_id, ()), *((one.occurred_at, one.points) for one in more)]
    return tiers.standing(earned, at, registry.programme.thresholds)


def _review(customer: Customer, at: datetime | None) -> list[ReviewSet]:
    return [ReviewSet(customer_id=customer.customer_id, at=at)] if customer.review_at != at else []
