"""Invariants of money: the ledger in itself, orders against it, the logs of provider and carrier against ours."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from bench.evidence import Evidence
from bench.finding import ENDED, RESTING, Finding

Books = Mapping[str, Mapping[str, Decimal]]  # amounts by order and account
NONE: Mapping[str, Decimal] = {}
UNDER_WAY = {"shipped", "delivered", "lost"}


def i2_ledger(evidence: Evidence) -> Finding:
    ledger = evidence.rows("order", "ledger")
    broken = [
        f"{row['kind']} of order {row['order_id']}: {dict(zip(row['accounts'], row['amounts'], strict=True))}"
        for row in ledger
        if sum(row["amounts"]) != 0
    ]
    broken += [f"the service's role may {row['right_']} entries" for row in evidence.rows("order", "rights")]
    return Finding("I2", "ledger: every transaction sums to 0, entries are only added", len(ledger), broken)


def i3_money(evidence: Evidence) -> Finding:
    broken: list[str] = []
    payments = {row["order_id"]: row for row in evidence.rows("order", "payments")}
    settled = [row for row in evidence.rows("order", "orders") if row["settled"]]
    books = _books(evidence)
    for order in settled:
        payment = payments.get(order["order_id"])
        kept = payment["captured"] - payment["refunded"] if payment else Decimal(0)
        due = order["total"] - order["cancelled_amount"] if order["state"] in RESTING else Decimal(0)
        if order["state"] in ENDED | RESTING:
            if kept != due:
                broken.append(f"order {order['order_id']} is {order['state']}: kept {kept}, due {due}")
            broken += _books_differ(order, books.get(order["order_id"], NONE), kept, due)
    ids = {order["order_id"] for order in settled}
    broken += _provider_differs(evidence, ids)
    broken += _carrier_differs(evidence, ids, books)
    statement = "money: captured - refunded = due = the ledger; provider's and carrier's logs = ours"
    return Finding("I3", statement, len(settled), broken)


def _books(evidence: Evidence) -> Books:
    books: dict[str, Counter[str]] = defaultdict(Counter)
    for row in evidence.rows("order", "ledger"):
        for account, amount in zip(row["accounts"], row["amounts"], strict=True):
            books[row["order_id"]][account] += amount
    return books  # pyright: ignore[reportReturnType]


def _books_differ(order: Mapping[str, Any], books: Mapping[str, Decimal], kept: Decimal, due: Decimal) -> Iterable[str]:
    """An order at rest: the money is in the books, nobody owes anything, and what was sold is what was paid."""

    def of(*accounts: str) -> Decimal:
        return sum((books.get(account, Decimal(0)) for account in accounts), Decimal(0))

    if of("cash", "provider_fees", "channel_fees") != kept:
        yield f"order {order['order_id']}: kept {kept}, in the ledger {of('cash', 'provider_fees', 'channel_fees')}"
    if of("receivable") != 0:
        yield f"order {order['order_id']} is {order['state']}: receivable {of('receivable')}"
    sold = -of("revenue", "refunds", "tax", "discount", "points_liability", "points_granted")
    if sold != due:
        yield f"order {order['order_id']} is {order['state']}: due {due}, sold in the ledger {sold}"


def _provider_differs(evidence: Evidence, settled: set[str]) -> Iterable[str]:
    ours = {row["payment_id"]: row for row in evidence.rows("order", "payments") if row["provider"] == "card"}
    theirs = {row["reference"]: row for row in evidence.provider_payments}
    if len(theirs) != len(evidence.provider_payments):
        yield "the provider knows a payment twice"
    for reference, payment in theirs.items():
        row = ours.get(reference)
        if row is None:
            yield f"payment {reference} is known to the provider only"
        elif row["order_id"] in settled:
            captured = Decimal(payment["amount"]) if payment["status"] == "captured" else Decimal(0)
            refunded = Decimal(payment["refunded"])
            if (row["captured"], row["refunded"]) != (captured, refunded):
                yield f"payment {reference}: {row['captured']} - {row['refunded']}, theirs {captured} - {refunded}"
    for reference, row in ours.items():
        if row["captured"] and reference not in theirs:
            yield f"payment {reference} was captured, and the provider does not know it"


def _carrier_differs(evidence: Evidence, settled: set[str], books: Books) -> Iterable[str]:
    theirs = {row["reference"]: row for row in evidence.carrier_parcels}
    if len(theirs) != len(evidence.carrier_parcels):
        yield "the carrier knows a parcel twice"
    ours = {
        f"{row['order_id']}/{row['number']}/{row['bookings']}": row
        for row in evidence.rows("order", "parcels")
        if row["tracking"] is not None
    }
    owed: Counter[str] = Counter()
    for reference, parcel in theirs.items():
        order_id = reference.split("/")[0]
        row = ours.get(reference)
        if parcel["status"] == "cancelled":
            continue
        owed[order_id] += Decimal(parcel["price"]["amount"])  # pyright: ignore[reportArgumentType]
        if order_id in settled and (row is None or row["tracking"] != parcel["tracking_number"]):
            yield f"parcel {reference} is {parcel['status']} at the carrier, ours is {row and row['state']}"
        elif order_id in settled and row is not None and row["state"] == "delivered" != parcel["status"]:
            yield f"parcel {reference} is delivered, the carrier says {parcel['status']}"
    for order_id in settled & (owed.keys() | books.keys()):
        booked = -books.get(order_id, NONE).get("carrier_payable", Decimal(0))
        if booked != owed[order_id]:
            yield f"order {order_id}: the carrier asks for {owed[order_id]}, in the ledger {booked}"
