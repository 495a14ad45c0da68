"""Who placed an order: given a registry, when something is said, then this is answered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import pytest

from services.customer.decisions import Claim, Said, Unreadable, decide, register
from services.customer.registry import Customer, Identification, Identity, IdentityLinked, OrderEnded, Outcome, Registry
from shared.events.customer import BuyerIdentified, BuyerRefused, CustomerRegistered
from shared.events.order import OrderCancelled, OrderExpired, OrderRejected

NOON = datetime(2010, 12, 1, 12, tzinfo=UTC)
ALICE, BOB = UUID(int=0xA11CE), UUID(int=0xB0B)
LAMPS, CUPS = UUID(int=0x1A3B5), UUID(int=0xC0B5)  # orders
ALICE_AT_HOME = Identity("email", b"alice@home")
ALICE_ON_BAZAAR = Identity("channel", b"bazaar/alice")
BOB_AT_WORK = Identity("email", b"bob@work")
ENDS = [
    OrderRejected(occurred_at=NOON, order_id=LAMPS, reason="stock"),
    OrderCancelled(occurred_at=NOON, order_id=LAMPS),
    OrderExpired(occurred_at=NOON, order_id=LAMPS),
]


def given(*customers: Customer, owners: dict[Identity, UUID] | None = None) -> Registry:
    return Registry(customers={one.customer_id: one for one in customers}, owners=owners or {})


def claim(order: UUID = LAMPS, *identities: Identity, **more: Any) -> Claim:
    return Claim(order_id=order, channel="bazaar", occurred_at=NOON, identities=identities, **more)


def when(registry: Registry, said: Said) -> list[Outcome]:
    """What is answered, once; the same said again changes nothing."""
    outcomes = decide(registry, said)
    for outcome in outcomes:
        registry.evolve(outcome)
    assert decide(registry, said) == []
    return outcomes


def identified(customer: UUID, *, order: UUID = LAMPS, new: bool = False) -> BuyerIdentified:
    return BuyerIdentified(
        occurred_at=NOON, order_id=order, customer_id=customer, recipient_id=uuid5(order, "recipient"),
        new_customer=new,
    )  # fmt: skip


def refused(reason: str, detail: str) -> BuyerRefused:
    return BuyerRefused(occurred_at=NOON, order_id=LAMPS, reason=reason, detail=detail)


def registered(customer: UUID, *, guest: bool = False) -> CustomerRegistered:
    return CustomerRegistered(occurred_at=NOON, customer_id=customer, channel="bazaar", guest=guest)


def test_a_new_buyer_becomes_a_customer() -> None:
    registry, new = given(), uuid5(LAMPS, "customer")
    assert when(registry, claim(LAMPS, ALICE_ON_BAZAAR, ALICE_AT_HOME)) == [
        registered(new),
        IdentityLinked(identity=ALICE_ON_BAZAAR, customer_id=new),
        IdentityLinked(identity=ALICE_AT_HOME, customer_id=new),
        identified(new, new=True),
    ]
    assert registry.orders[LAMPS].version == registry.customers[new].version == 1


def test_the_next_order_of_a_batch_finds_the_customer_that_the_one_before_made() -> None:
    registry, new = given(), uuid5(LAMPS, "customer")
    when(registry, claim(LAMPS, ALICE_AT_HOME))
    assert when(registry, claim(CUPS, ALICE_AT_HOME)) == [identified(new, order=CUPS)]


def test_a_known_buyer_brings_a_new_identity_along() -> None:
    registry = given(Customer(ALICE), owners={ALICE_AT_HOME: ALICE})
    assert when(registry, claim(LAMPS, ALICE_ON_BAZAAR, ALICE_AT_HOME)) == [
        IdentityLinked(identity=ALICE_ON_BAZAAR, customer_id=ALICE),
        identified(ALICE),
    ]


def test_where_channel_and_email_name_two_customers_the_channel_wins_and_nothing_is_merged() -> None:
    registry = given(Customer(ALICE), Customer(BOB), owners={ALICE_ON_BAZAAR: ALICE, BOB_AT_WORK: BOB})
    assert when(registry, claim(LAMPS, ALICE_ON_BAZAAR, BOB_AT_WORK)) == [identified(ALICE)]
    assert registry.owners[BOB_AT_WORK] == BOB


def test_another_value_with_the_same_hash_is_another_buyer() -> None:
    registry = given(Customer(ALICE), owners={ALICE_AT_HOME: ALICE})
    twin = Identity("email", ALICE_AT_HOME.hash, collision=1)
    assert identified(uuid5(LAMPS, "customer"), new=True) in when(registry, claim(LAMPS, twin))


def test_each_order_of_a_guest_has_a_guest_of_its_own() -> None:
    registry = given()
    lamps, cups = uuid5(LAMPS, "customer"), uuid5(CUPS, "customer")
    assert when(registry, claim(LAMPS)) == [registered(lamps, guest=True), identified(lamps, new=True)]
    assert when(registry, claim(CUPS)) == [registered(cups, guest=True), identified(cups, order=CUPS, new=True)]


def test_a_logged_in_buyer_is_who_the_store_says_and_links_nothing() -> None:
    registry = given(Customer(ALICE), Customer(BOB), owners={BOB_AT_WORK: BOB})
    assert when(registry, claim(LAMPS, BOB_AT_WORK, ALICE_AT_HOME, customer_id=ALICE)) == [identified(ALICE)]
    assert ALICE_AT_HOME not in registry.owners


def test_an_alias_names_the_customer_it_was_merged_into() -> None:
    registry = given(Customer(ALICE))
    registry.aliases[BOB] = ALICE
    assert when(registry, claim(customer_id=BOB)) == [identified(ALICE)]


def test_an_unknown_customer_is_refused() -> None:
    assert when(given(), claim(customer_id=BOB)) == [refused("unknown_customer", f"no customer {BOB}")]


def test_an_unreadable_buyer_is_refused() -> None:
    said = Unreadable(order_id=LAMPS, occurred_at=NOON)
    assert when(given(), said) == [refused("unreadable", "the buyer's data cannot be read")]


def test_guests_and_new_buyers_have_no_points_and_are_not_registered_for_asking() -> None:
    for said in (claim(points=1), claim(LAMPS, ALICE_AT_HOME, points=1)):
        registry = given()
        assert when(registry, said) == [
            refused("points", "points are redeemed by a known customer only: name the customer_id")
        ]
        assert registry.customers == {}


@pytest.mark.parametrize("end", ENDS, ids=lambda end: type(end).__name__)
def test_the_buyer_of_an_order_that_ended_before_is_known_all_the_same_to_be_told(end: Said) -> None:
    registry = given(Customer(ALICE, balance=500))
    assert when(registry, end) == [OrderEnded(order_id=LAMPS)]
    assert when(registry, claim(customer_id=ALICE, points=300)) == [identified(ALICE), OrderEnded(order_id=LAMPS)]
    assert registry.orders[LAMPS] == Identification("ended", 1, ALICE, 0)
    assert registry.customers[ALICE].balance == 500
    assert when(registry, end) == []


def test_a_buyer_whom_nobody_knows_is_not_told_of_an_order_that_ended_before() -> None:
    registry = given()
    when(registry, ENDS[0])
    assert when(registry, claim(customer_id=BOB)) == []
    assert registry.orders[LAMPS] == Identification("ended")


def test_an_order_without_points_ends_silently() -> None:
    registry = given(Customer(ALICE))
    when(registry, claim(customer_id=ALICE))
    assert when(registry, ENDS[1]) == [OrderEnded(order_id=LAMPS)]
    assert registry.orders[LAMPS].customer_id == ALICE


def test_a_refused_order_stays_refused_when_it_ends() -> None:
    registry = given()
    when(registry, claim(customer_id=BOB))
    assert when(registry, ENDS[0]) == []
    assert registry.orders[LAMPS].state == "refused"


def test_who_registers_with_a_known_email_is_known() -> None:
    registry = given(Customer(ALICE), owners={ALICE_AT_HOME: ALICE})
    assert register(registry, (ALICE_AT_HOME,), customer_id=BOB, channel="store", occurred_at=NOON) == []
