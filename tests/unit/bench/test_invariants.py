"""A healthy platform in miniature breaks nothing, and each violation planted in it is caught by its invariant alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from bench.evidence import Evidence, Logged, Rows
from bench.invariants import judge
from shared.topics import CARE, CUSTOMERS, HOLDS, IDENTIFICATIONS, ITEMS, ORDERS, PRICES, QUOTES, STOCK

GOOD, BAD, ANNA = "order-good", "order-bad", "anna"
TODAY = datetime.now(UTC).date().isoformat()
Plant = Callable[[Evidence], None]


def healthy() -> Evidence:
    """Anna bought a lamp, which the carrier is to collect; her second order, with coupon and points, was declined."""
    said = {
        (ORDERS.name, GOOD): ("OrderPlaced", "PaymentRequested", "PaymentCaptured", "OrderConfirmed"),
        (ORDERS.name, BAD): ("OrderPlaced", "PaymentRequested", "PaymentDeclined", "OrderRejected"),
        (HOLDS.name, GOOD): ("StockHeld",),
        (HOLDS.name, BAD): ("StockHeld", "StockReleased"),
        (IDENTIFICATIONS.name, GOOD): ("BuyerIdentified",),
        (IDENTIFICATIONS.name, BAD): ("BuyerIdentified", "PointsReleased"),
        (QUOTES.name, GOOD): ("OrderPriced",),
        (QUOTES.name, BAD): ("OrderPriced", "CouponReleased"),
        (STOCK.name, "lamp"): ("StockLevelChanged",) * 4,
        (ITEMS.name, "lamp"): ("ItemRegistered",),
        (CUSTOMERS.name, ANNA): ("CustomerRegistered",),
        (PRICES.name, "lamp"): ("PriceChanged",),
        (CARE.name, GOOD): ("CareTriggered",),
    }
    log: list[Logged] = []
    for (topic, key), types in said.items():
        for number, type_ in enumerate(types, 1):
            offset = sum(record.topic == topic for record in log)
            log.append(Logged(topic, 0, offset, key, type_, f"{topic}/{key}/{number}", number, TODAY))
    return Evidence(
        tables(), log,
        [payment("pay-good", "captured", "24.90"), payment("pay-bad", "declined", "24.90")],
        [carried(f"{GOOD}/1/0", "booked", "T1")],
        [("web", "1", GOOD), ("web", "2", BAD)],
    )  # fmt: skip


def payment(reference: str, status: str, amount: str) -> dict[str, Any]:
    return {"reference": reference, "status": status, "amount": amount, "refunded": "0.00"}


def carried(reference: str, status: str, tracking: str) -> dict[str, Any]:
    return {
        "reference": reference, "status": status, "tracking_number": tracking,
        "price": {"amount": "4.20", "currency": "GBP"},
    }  # fmt: skip


def booked(kind: str, **amounts: str) -> dict[str, Any]:
    return {
        "order_id": GOOD, "kind": kind, "currency": "GBP", "accounts": list(amounts),
        "amounts": [Decimal(amount) for amount in amounts.values()],
    }  # fmt: skip


def tables() -> dict[str, dict[str, Rows]]:
    def order(id_: str, reference: str, state: str) -> dict[str, Any]:
        return {
            "order_id": id_, "channel": "web", "external_reference": reference, "state": state, "version": 4,
            "total": Decimal("24.90"), "cancelled_amount": Decimal(0), "deadline_at": None, "overdue": None,
            "settled": True, "goods": "lamp 1", "coupon": "ten",
        }  # fmt: skip

    def paid(id_: str, order_id: str, captured: str) -> dict[str, Any]:
        return {
            "payment_id": id_, "order_id": order_id, "provider": "card", "state": "captured",
            "amount": Decimal("24.90"), "captured": Decimal(captured), "refunded": Decimal(0), "overdue": None,
        }  # fmt: skip

    own: dict[str, dict[str, Rows]] = {
        "order": {
            "orders": [order(GOOD, "1", "confirmed"), order(BAD, "2", "rejected")],
            "payments": [paid("pay-good", GOOD, "24.90"), paid("pay-bad", BAD, "0")],
            "refunds": [],
            "parcels": [
                {
                    "order_id": GOOD,
                    "number": 1,
                    "state": "booked",
                    "bookings": 0,
                    "tracking": "T1",
                    "items": {"lamp": 1},
                    "issued": False,
                    "overdue": False,
                },
            ],
            "ledger": [
                booked("payment", cash="24.50", provider_fees="0.40", receivable="-24.90"),
                booked("sale", receivable="24.90", discount="2.10", tax="-4.15", revenue="-22.85"),
                booked("shipping", shipping="4.20", carrier_payable="-4.20"),
            ],
            "rights": [],
        },
        "inventory": {
            "levels": [{"sku": "lamp", "warehouse": "leeds", "on_hand": 9, "reserved": 1, "moved": 9, "held": 1}],
            "holds": [
                {"order_id": GOOD, "state": "held", "version": 1, "goods": "lamp 1"},
                {"order_id": BAD, "state": "released", "version": 2, "goods": None},
            ],
            "items": [{"sku": "lamp", "version": 1, "stock_version": 4}],
        },
        "customer": {
            "identifications": [
                {"order_id": GOOD, "state": "identified", "version": 1, "points_held": 0},
                {"order_id": BAD, "state": "ended", "version": 2, "points_held": 0},
            ],
            "customers": [
                {
                    "customer_id": ANNA,
                    "version": 1,
                    "points_balance": 5,
                    "points_held": 0,
                    "entered": 5,
                    "held_for_orders": 0,
                },
            ],
        },
        "pricing": {
            "order_prices": [
                {"order_id": GOOD, "state": "priced", "version": 1, "coupon": None},
                {"order_id": BAD, "state": "priced", "version": 2, "coupon": None},
            ],
            "coupon_uses": [
                {"coupon": "ten", "order_id": BAD, "state": "released"},
                {"coupon": "ten", "order_id": GOOD, "state": "held"},
            ],
            "coupons": [{"code": "ten", "used": 1, "held": 1}],
            "quotes": [{"quote_id": "q", "order_id": None, "state": "open"}],
            "prices": [{"sku": "lamp", "version": 1}],
        },
        "notify": {"care": [{"order_id": GOOD, "version": 1}]},
    }
    consumers = {
        "order": "join_answers", "inventory": "hold_stock", "customer": "identify_buyers", "pricing": "price_orders",
        "notify": "trigger_care",
    }  # fmt: skip
    return {service: rows | kernel(consumers[service]) for service, rows in own.items()}


def kernel(consumer: str) -> dict[str, Rows]:
    return {
        "outbox": [{"rows": 0}],
        "offsets": [
            {"consumer": consumer, "topic": ORDERS.name, "partition": 0, "start_offset": 0, "next_offset": 8,
             "applied": 5, "duplicate": 1, "skipped": 1, "dead_lettered": 1, "redriven": 1}
        ],
        "inbox": [{"consumer": consumer, "events": 6, "oldest": None}],
    }  # fmt: skip


def change(service: str, table: str, number: int = 0, **values: Any) -> Plant:
    def plant(evidence: Evidence) -> None:
        evidence.rows(service, table)[number].update(values)

    return plant


def add(service: str, table: str, **values: Any) -> Plant:
    def plant(evidence: Evidence) -> None:
        rows = evidence.rows(service, table)
        rows.append({**rows[0], **values})

    return plant


def forget(service: str, table: str, number: int = 0) -> Plant:
    def plant(evidence: Evidence) -> None:
        del evidence.rows(service, table)[number]

    return plant


def at_the_provider(number: int, **values: Any) -> Plant:
    def plant(evidence: Evidence) -> None:
        evidence.provider_payments[number].update(values)

    return plant


def unknown_there(evidence: Evidence) -> None:
    del evidence.provider_payments[0]


def captured_twice(evidence: Evidence) -> None:
    evidence.provider_payments.append(payment("pay-good", "captured", "24.90"))


def acknowledged(reference: str, order_id: str) -> Plant:
    def plant(evidence: Evidence) -> None:
        evidence.acknowledged = [("web", reference, order_id)]

    return plant


def logged(change_log: Callable[[list[Logged]], list[Logged]]) -> Plant:
    def plant(evidence: Evidence) -> None:
        evidence.log = change_log(list(evidence.log))

    return plant


def at_the_carrier(**values: Any) -> Plant:
    def plant(evidence: Evidence) -> None:
        evidence.carrier_parcels[0].update(values)

    return plant


def unbalanced(evidence: Evidence) -> None:
    """The sum over all accounts that I3 looks at stays as it was."""
    evidence.rows("order", "ledger")[2]["amounts"][0] = Decimal("4.30")


def may_update(evidence: Evidence) -> None:
    evidence.rows("order", "rights").append({"right_": "UPDATE"})


def carried_twice(evidence: Evidence) -> None:
    evidence.carrier_parcels.append(dict(evidence.carrier_parcels[0]))


def both(*plants: Plant) -> Plant:
    def plant(evidence: Evidence) -> None:
        for one in plants:
            one(evidence)

    return plant


def lost(log: list[Logged]) -> list[Logged]:
    """The second of four events is not in Kafka."""
    return [one for one in log if (one.topic, one.key, one.sequence) != (ORDERS.name, GOOD, 2)]


def swapped(log: list[Logged]) -> list[Logged]:
    places = {2: 3, 3: 2}

    def moved(one: Logged) -> Logged:
        return replace(one, offset=places.get(one.offset, one.offset)) if one.topic == ORDERS.name else one

    return [moved(one) for one in log]


def ended_twice(log: list[Logged]) -> list[Logged]:
    end = next(one for one in log if one.type == "OrderRejected")
    return [*log, replace(end, type="OrderExpired", id="another", sequence=5, offset=8)]


def ended_though_confirmed(log: list[Logged]) -> list[Logged]:
    end = next(one for one in log if one.type == "OrderRejected")
    return [*log, replace(end, key=GOOD, id="another", sequence=5, offset=8)]


def from_nowhere(log: list[Logged]) -> list[Logged]:
    return [*log, replace(log[0], key="order-nobody-placed", id="another", offset=8, type="PaymentRequested")]


STUCK = {"state": "paying", "deadline_at": "an hour ago", "overdue": True}
UNPAID = change("order", "payments", 0, captured=Decimal(0))
UNPAID_THERE = at_the_provider(0, status="cancelled")

PLANTED: tuple[tuple[str, str, Plant], ...] = (
    ("I1", "oversold", change("inventory", "levels", reserved=10, held=10)),
    ("I1", "negative", change("inventory", "levels", reserved=-1, held=-1)),
    ("I1", "a movement without its effect", change("inventory", "levels", moved=10)),
    ("I1", "a hold without its reservation", change("inventory", "levels", held=2)),
    ("I2", "a transaction that does not balance", unbalanced),
    ("I2", "entries that can be changed", may_update),
    ("I3", "money that is not in the books", forget("order", "ledger", 0)),
    ("I3", "a sale that is not in the books", forget("order", "ledger", 1)),
    ("I3", "a sale that is in the books twice",
     add("order", "ledger", **booked("sale", receivable="24.90", revenue="-24.90"))),
    ("I3", "a carrier that is not paid", forget("order", "ledger", 2)),
    ("I3", "a parcel that the carrier knows under another number", at_the_carrier(tracking_number="T2")),
    ("I3", "a parcel of which we know nothing", at_the_carrier(reference=f"{GOOD}/2/0")),
    ("I3", "a parcel that the carrier has twice", carried_twice),
    ("I3", "confirmed and not paid", both(UNPAID, UNPAID_THERE)),
    ("I3", "rejected and paid", both(change("order", "payments", 1, captured=Decimal("24.90")),
                                     at_the_provider(1, status="captured"))),
    ("I3", "confirmed and refunded", both(change("order", "payments", 0, refunded=Decimal("24.90")),
                                          at_the_provider(0, refunded="24.90"))),
    ("I3", "a part cancelled and not refunded", change("order", "orders", 0, cancelled_amount=Decimal("1.00"))),
    ("I3", "captured here only", at_the_provider(0, status="pending")),
    ("I3", "captured there only", at_the_provider(1, status="captured")),
    ("I3", "refunded there only", at_the_provider(0, refunded="0.01")),
    ("I3", "unknown here", at_the_provider(1, reference="pay-strange")),
    ("I3", "unknown there", unknown_there),
    ("I3", "captured twice there", captured_twice),
    ("I4", "an acknowledged order that is gone", acknowledged("9", "gone")),
    ("I4", "acknowledged under another name",
     acknowledged("2", GOOD)),
    ("I4", "two orders of one reference", change("order", "orders", 1, external_reference="1")),
    ("I5", "a refused order that holds stock", change("inventory", "holds", 1, goods="lamp 1")),
    ("I5", "a refused order that holds points", change("customer", "identifications", 1, points_held=5)),
    ("I5", "a refused order that holds a coupon", change("pricing", "coupon_uses", state="held")),
    ("I5", "a refused order that holds a quote", change("pricing", "quotes", state="held", order_id=BAD)),
    ("I5", "a refused order whose payment nobody asks about", change("order", "payments", 1, overdue=True)),
    ("I5", "a confirmed order that has lost its goods", change("inventory", "holds", goods=None)),
    ("I5", "a confirmed order that holds other goods", change("inventory", "holds", goods="cup 1")),
    ("I5", "a confirmed order that has lost its coupon", change("pricing", "coupon_uses", 1, state="released")),
    ("I5", "goods that are in no parcel", change("order", "parcels", items={"lamp": 1, "cup": 1})),
    ("I5", "a parcel that nobody asks about", change("order", "parcels", overdue=True)),
    ("I5", "a shipped parcel whose goods are still held", change("order", "parcels", state="shipped")),
    ("I5", "an order that is delivered and not closed",
     both(change("order", "parcels", state="delivered"), at_the_carrier(status="delivered"),
          change("inventory", "holds", goods=None))),
    ("I5", "points held for no order", change("customer", "customers", points_held=2)),
    ("I5", "points that nobody entered", change("customer", "customers", points_balance=9)),
    ("I5", "a coupon used by nobody", change("pricing", "coupons", used=2)),
    ("I5", "an order that is stuck", change("order", "orders", 1, **STUCK)),
    ("I5", "an open order without a deadline", change("order", "orders", 1, state="placed")),
    ("I6", "a version that nobody heard of", change("order", "orders", 0, version=5)),
    ("I6", "a version behind its own past", change("pricing", "prices", version=0)),
    ("I6", "events that wait in an outbox", change("notify", "outbox", rows=1)),
    ("I6", "an event without its row", forget("notify", "care")),
    ("I6", "an event of an order that was never placed", logged(from_nowhere)),
    ("I7", "an event that is lost", logged(lost)),
    ("I7", "events in the wrong order", logged(swapped)),
    ("I8", "an effect without its mark", change("inventory", "inbox", events=5)),
    ("I8", "a mark without its effect", change("pricing", "inbox", events=7)),
    ("I8", "an effect whose mark is gone", forget("customer", "inbox")),
    ("I8", "a redriven dead letter without its mark", change("order", "offsets", redriven=2)),
    ("I8", "a redriven dead letter that nobody counted", change("order", "offsets", redriven=0)),
    ("I9", "a message that nobody accounts for", change("order", "offsets", skipped=0)),
    ("I9", "a message that is counted twice", change("notify", "offsets", duplicate=2)),
)  # fmt: skip


def broken(evidence: Evidence) -> list[str]:
    return [finding.id for finding in judge(evidence) if not finding.held]


def test_a_healthy_platform_breaks_nothing():
    findings = judge(healthy())
    assert [(finding.id, list(finding.broken)) for finding in findings if not finding.held] == []
    assert all(finding.checked for finding in findings)


@pytest.mark.parametrize(
    ("invariant", "plant"), [(i, p) for i, _, p in PLANTED], ids=[f"{i} {n}" for i, n, _ in PLANTED]
)
def test_a_planted_violation_is_caught_by_its_invariant_alone(invariant: str, plant: Plant):
    evidence = healthy()
    plant(evidence)
    assert broken(evidence) == [invariant]


@pytest.mark.parametrize("change_log", [ended_twice, ended_though_confirmed])
def test_an_order_that_ended_twice_is_caught(change_log: Callable[[list[Logged]], list[Logged]]):
    evidence = healthy()
    logged(change_log)(evidence)
    assert "I5" in broken(evidence)


def test_an_order_that_a_service_has_read_and_not_answered_is_caught():
    evidence = healthy()
    forget("inventory", "holds", 1)(evidence)
    evidence.log = [one for one in evidence.log if (one.topic, one.key) != (HOLDS.name, BAD)]
    assert broken(evidence) == ["I8"]


def closed(evidence: Evidence) -> None:
    """Anna has her lamp."""
    end = next(one for one in evidence.log if one.type == "OrderRejected")
    evidence.log = [*evidence.log, replace(end, key=GOOD, type="OrderClosed", id="closed", sequence=5, offset=8)]
    both(
        change("order", "orders", state="closed", version=5), change("order", "parcels", state="delivered"),
        at_the_carrier(status="delivered"), change("inventory", "holds", goods=None, state="issued"),
        change("inventory", "levels", reserved=0, held=0),
    )(evidence)  # fmt: skip


@pytest.mark.parametrize(
    ("invariant", "plant"),
    [
        (None, both()),
        ("I3", at_the_carrier(status="lost")),
        ("I3", at_the_carrier(tracking_number="T2")),
        ("I5", change("order", "parcels", state="shipped")),
        ("I5", change("order", "parcels", state="dropped")),
        ("I5", change("inventory", "holds", goods="lamp 1")),
        ("I5", change("pricing", "coupon_uses", 1, state="released")),
    ],
)
def test_a_closed_order_is_judged_like_one_on_its_way(invariant: str | None, plant: Plant):
    evidence = healthy()
    both(closed, plant)(evidence)
    assert broken(evidence) == ([invariant] if invariant else [])


def test_a_relays_repeat_is_no_violation():
    evidence = healthy()
    repeat = next(one for one in evidence.log if one.topic == ORDERS.name and one.sequence == 2)
    evidence.log = [*evidence.log, replace(repeat, offset=8)]
    assert broken(evidence) == []


def test_what_does_not_rest_yet_is_not_judged_as_settled():
    evidence = healthy()
    both(change("order", "orders", 1, settled=False), change("inventory", "holds", 1, goods="lamp 1"))(evidence)
    both(change("order", "payments", 1, captured=Decimal("24.90")), at_the_provider(1, status="captured"))(evidence)
    assert broken(evidence) == []
