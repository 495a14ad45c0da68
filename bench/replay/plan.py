"""From rows to what is sent: orders, and cancellations matched with what they undo."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from bench.replay.rows import CANCELLATION, PURCHASE, Row

MAX_LINES = 2_000

# How the files write countries; any other becomes ZZ, of the range that ISO 3166 leaves to its users.
COUNTRIES = {
    "Australia": "AU", "Austria": "AT", "Bahrain": "BH", "Belgium": "BE", "Brazil": "BR", "Canada": "CA",
    "Channel Islands": "JE", "Cyprus": "CY", "Czech Republic": "CZ", "Denmark": "DK", "EIRE": "IE",
    "Finland": "FI", "France": "FR", "Germany": "DE", "Greece": "GR", "Hong Kong": "HK",
    "Iceland": "IS", "Israel": "IL", "Italy": "IT", "Japan": "JP", "Lebanon": "LB", "Lithuania": "LT", "Malta": "MT",
    "Netherlands": "NL", "Norway": "NO", "Poland": "PL", "Portugal": "PT", "RSA": "ZA", "Saudi Arabia": "SA",
    "Singapore": "SG", "Spain": "ES", "Sweden": "SE", "Switzerland": "CH", "USA": "US", "United Arab Emirates": "AE",
    "United Kingdom": "GB",
}  # fmt: skip


@dataclass
class Line:
    row: Row
    left: int  # units that no cancellation has undone


@dataclass
class Order:
    """The purchases of one invoice by one customer."""

    reference: str
    lines: list[Line]

    @property
    def rows(self) -> list[Row]:
        return [line.row for line in self.lines]

    @property
    def amount(self) -> Decimal:
        return sum((row.amount for row in self.rows), Decimal(0))

    def body(self, channel: str, sku_prefix: str) -> dict[str, Any]:
        """The order as the API takes it: paid, with the channel's own prices, in business time."""
        first = self.rows[0]
        return {
            "channel": channel,
            "external_reference": self.reference,
            "currency": "GBP",
            "buyer": {"channel_id": first.customer} if first.customer else {},
            "recipient": {
                "name": f"Customer {first.customer}" if first.customer else "Guest",
                "street": "not in the file", "city": "not in the file", "country": COUNTRIES.get(first.country, "ZZ"),
            },
            "lines": [
                {"sku": sku_prefix + row.sku, "quantity": row.quantity, "unit_price": str(row.unit_price)}
                for row in self.rows
            ],
            "payment": {"method": "prepaid"},
            "fulfilment": "channel",
            "placed_at": first.at.isoformat(),
        }  # fmt: skip


@dataclass(frozen=True)
class Undo:
    """A cancellation row and the line of the order that it undoes; ``line`` counts from 1."""

    row: Row
    order: Order
    line: int
    name: str  # of the row, the same whichever files it is read with

    @property
    def units(self) -> int:
        return -self.row.quantity


@dataclass
class Plan:
    """Every row is in ``orders``, in ``cancellations`` until matched, then in ``undos``, or counted in ``aside``."""

    orders: list[Order] = field(default_factory=list[Order])
    cancellations: list[Row] = field(default_factory=list[Row])
    undos: list[Undo] = field(default_factory=list[Undo])
    aside: Counter[str] = field(default_factory=Counter[str])
    rows: int = 0

    def set_aside(self, order: Order, reason: str) -> None:
        self.aside[reason] += len(order.lines)

    @property
    def skus(self) -> dict[str, int]:
        """Units bought per SKU."""
        units: Counter[str] = Counter()
        for order in self.orders:
            for row in order.rows:
                units[row.sku] += row.quantity
        return dict(units)

    @property
    def names(self) -> dict[str, str]:
        """Per SKU the description that most of its rows have."""
        told: dict[str, Counter[str]] = defaultdict(Counter)
        for order in self.orders:
            for row in order.rows:
                told[row.sku][row.description] += bool(row.description)
        return {sku: names.most_common(1)[0][0] or sku for sku, names in told.items()}


def make(rows: Iterable[tuple[str, Row | None]]) -> Plan:
    """Group purchases into orders; cancellations wait for ``match``. Rows come in the order of the files."""
    plan = Plan()
    orders: dict[tuple[str, str | None], Order] = {}
    invoices: Counter[str] = Counter()
    for what, row in rows:
        plan.rows += 1
        if row is None or what not in (PURCHASE, CANCELLATION):
            plan.aside[what] += 1
        elif what == CANCELLATION:
            plan.cancellations.append(row)
        else:
            key = (row.invoice, row.customer)
            if key not in orders:
                # The invoice number names the order; where an invoice names several customers, theirs does, too.
                several = f"/{row.customer or 'guest'}" if invoices[row.invoice] else ""
                orders[key] = Order(row.invoice + several, [])
                invoices[row.invoice] += 1
            orders[key].lines.append(Line(row, row.quantity))
    for order in orders.values():
        if len(order.lines) > MAX_LINES:
            plan.set_aside(order, f"an order of more than {MAX_LINES} lines")
        else:
            plan.orders.append(order)
    return plan


def match(plan: Plan, confirmed: Container[str]) -> None:
    """A cancellation undoes the latest earlier purchase of its customer and SKU that has enough left.

    ``confirmed`` are the references of the orders that came about: a refused one has nothing to undo.
    """
    bought: dict[tuple[str, str], list[tuple[Order, int]]] = defaultdict(list)
    for order in plan.orders:
        for number, line in enumerate(order.lines, 1):
            if line.row.customer and order.reference in confirmed:
                bought[line.row.customer, line.row.sku].append((order, number))
    for purchases in bought.values():
        purchases.sort(key=lambda one: (one[0].lines[one[1] - 1].row.at, one[0].reference, one[1]))
    named: Counter[tuple[str, str]] = Counter()
    for row in sorted(plan.cancellations, key=lambda one: one.at):
        named[row.invoice, row.sku] += 1
        if row.customer is None:
            plan.aside["cancellation by an unknown customer"] += 1
            continue
        for order, number in reversed(bought[row.customer, row.sku]):
            line = order.lines[number - 1]
            if line.row.at <= row.at and line.left >= -row.quantity:
                line.left += row.quantity
                name = f"{row.invoice}/{row.sku}/{named[row.invoice, row.sku]}"
                plan.undos.append(Undo(row, order, number, name))
                break
        else:
            plan.aside["cancellation without an earlier purchase to undo"] += 1
    plan.cancellations = []
