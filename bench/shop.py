"""A shop with customers, all made up: its catalogue, and a seeded stream of the orders that they place."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

WAREHOUSES = [
    {"code": "leeds", "name": "Leeds", "country": "GB", "priority": 1},
    {"code": "lyon", "name": "Lyon", "country": "FR", "priority": 2},
    {"code": "hamburg", "name": "Hamburg", "country": "DE", "priority": 3},
]
COLOURS = ("red", "blue", "green", "white", "black", "amber")
THINGS = {
    "lamp": "24.90",
    "cup": "6.50",
    "chair": "89.00",
    "clock": "32.00",
    "shelf": "54.50",
    "vase": "18.20",
    "rug": "75.00",
}
SCARCE = "gold-lamp"  # ten of them, and many want one
COUPON, FEW = "welcome", "first-five"  # one for everybody, one for five

PEOPLE = (
    "Ann",
    "Bea",
    "Carl",
    "Dora",
    "Emil",
    "Fay",
    "Gus",
    "Hal",
    "Ida",
    "Jon",
    "Kim",
    "Leo",
    "Mia",
    "Ned",
    "Ola",
    "Pia",
)
PLACES = (("GB", "Leeds", "LS1 4AP"), ("GB", "York", "YO1 7HH"), ("FR", "Lyon", "69001"), ("DE", "Hamburg", "20095"))


def prices() -> dict[str, str]:
    """List prices by SKU, tax contained."""
    return {SCARCE: "149.00", **{f"{colour}-{thing}": price for thing, price in THINGS.items() for colour in COLOURS}}


def items() -> list[dict[str, Any]]:
    return [
        {"sku": sku, "name": sku.replace("-", " ").capitalize(), "category": sku.split("-")[1], "weight": 800}
        for sku in prices()
    ]


def receipts(units: int) -> list[dict[str, Any]]:
    """Goods for all warehouses; of the scarce one only ten, in one of them."""
    costs = {sku: str((Decimal(price) * Decimal("0.6")).quantize(Decimal("0.01"))) for sku, price in prices().items()}
    return [
        {"sku": sku, "warehouse": house["code"], "quantity": units, "unit_cost": cost, "currency": "GBP"}
        for sku, cost in costs.items()
        for house in WAREHOUSES
        if sku != SCARCE
    ] + [{"sku": SCARCE, "warehouse": "leeds", "quantity": 10, "unit_cost": costs[SCARCE], "currency": "GBP"}]


@dataclass(frozen=True)
class Member:
    """A customer who is known, with points, and may be written to."""

    customer_id: str
    name: str
    email: str


@dataclass
class Buying:
    """An order, and what its buyer does beside placing it."""

    order: dict[str, Any]
    twice: bool = False  # the shop sends it again, as after a broken connection
    changes_mind: bool = False  # cancelled as soon as it is placed
    thinks_again: bool = False  # cancelled once it is confirmed, when the carrier may have it already


@dataclass
class Shop:
    """Orders of 1-5 lines; the same seed and run give the same orders."""

    seed: int
    run: str
    members: Sequence[Member] = ()
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.seed}")

    def buyings(self, count: int) -> Iterator[Buying]:
        for number in range(count):
            order = self._order(number)
            chance = self._random.random()
            yield Buying(
                order, twice=chance < 0.05, changes_mind=0.05 <= chance < 0.08, thinks_again=0.08 <= chance < 0.11
            )

    def _order(self, number: int) -> dict[str, Any]:
        dice, listed = self._random, prices()
        skus = dice.sample(sorted(set(listed) - {SCARCE}), dice.choices((1, 2, 3, 4, 5), (40, 30, 15, 10, 5))[0])
        if dice.random() < 0.06:
            skus.append(SCARCE)
        units = {sku: 1 if sku == SCARCE else dice.choice((1, 1, 1, 2, 3)) for sku in skus}
        country, city, postal_code = dice.choice(PLACES)
        if dice.random() < 0.01:
            city = "Nowhere"  # the carrier does not go there
        name = dice.choice(PEOPLE)
        order: dict[str, Any] = {
            "channel": "web",
            "external_reference": f"{self.run}-{number:05}",
            "currency": "GBP",
            "buyer": {"name": name, "email": f"{name.lower()}.{dice.randrange(20)}@example.org"},
            "recipient": {"name": name, "street": f"{dice.randrange(1, 99)} High Street", "city": city,
                          "postal_code": postal_code, "country": country},
            "lines": [{"sku": sku, "quantity": quantity} for sku, quantity in units.items()],
            "payment": {"method": "card", "token": self._token()},
        }  # fmt: skip
        member = dice.choice(self.members) if self.members and dice.random() < 0.3 else None
        if member is not None:
            order |= {"customer_id": member.customer_id, "buyer": {"name": member.name, "email": member.email}}
            order |= {"points": 50} if dice.random() < 0.3 else {}
            return order
        shown = sum((Decimal(listed[sku]) * quantity for sku, quantity in units.items()), Decimal(0))
        chance = dice.random()
        if chance < 0.05:
            order["coupon"] = FEW
        elif chance < 0.15:
            order["coupon"] = COUPON
        elif chance < 0.17:
            order["expected_total"] = str(shown - 1)  # the page was a price behind
        elif chance < 0.60:
            order["expected_total"] = str(shown)
        return order

    def _token(self) -> str:
        tokens = ("tok_ok", "tok_declined", "tok_insufficient_funds", "tok_slow", "tok_3ds", "tok_timeout", "tok_lost")
        return self._random.choices(tokens, (900, 20, 15, 30, 10, 4, 6))[0]
