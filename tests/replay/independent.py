"""The totals of Online Retail files, computed from the files alone: it shares no code with the platform or its replay.

    python tests/replay/independent.py FILE...

prints, per month and in all, what purchases are worth and what cancellations take back: each undoes the latest earlier
purchase of its customer and product with enough left, at the price that was paid. Prices contain value-added tax of the
country of destination, where it is one of those below.
"""

import csv
import gzip
import sys
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

NOT_GOODS = {"POST", "DOT", "C2", "BANK CHARGES", "AMAZONFEE", "CRUK", "PADS"}


CENT = Decimal("0.01")

# Standard rates of December 2010 to August 2011, in percent.
VAT = {
    "Austria": "20", "Belgium": "21", "Denmark": "25", "EIRE": "21", "France": "19.6", "Germany": "19", "Italy": "20",
    "Netherlands": "19", "Spain": "18", "Sweden": "25",
}  # fmt: skip


def vat(country: str, when: datetime) -> Decimal:
    if country == "United Kingdom":
        return Decimal("20" if when >= datetime(2011, 1, 4) else "17.5")  # noqa: DTZ001 - as in the files
    if country == "Poland":
        return Decimal("23" if when.year >= 2011 else "22")
    return Decimal(VAT.get(country, "0"))


@dataclass
class Month:
    """Amounts in GBP, tax contained, and that tax."""

    sold: Decimal = Decimal(0)
    sold_tax: Decimal = Decimal(0)
    back: Decimal = Decimal(0)
    back_tax: Decimal = Decimal(0)


@dataclass
class Purchase:
    when: datetime
    invoice: str
    units: int
    left: int
    price: Decimal
    rate: Decimal

    @property
    def worth(self) -> Decimal:
        return (self.left * self.price).quantize(CENT, ROUND_HALF_UP)

    @property
    def tax(self) -> Decimal:
        """Of what is left: the line's tax, in proportion."""
        whole = (self.units * self.price).quantize(CENT, ROUND_HALF_UP)
        contained = (whole * self.rate / (100 + self.rate)).quantize(CENT, ROUND_HALF_UP)
        return (contained * self.left / self.units).quantize(CENT, ROUND_HALF_UP)


def is_goods(code: str) -> bool:
    return not (code in NOT_GOODS or code.startswith("GIFT_") or (len(code) == 1 and code.isalpha()))


def months(paths: list[str]) -> dict[str, Month]:
    """By month, as in 2011-05."""
    bought: defaultdict[tuple[str, str], list[Purchase]] = defaultdict(list)
    taken_back: list[tuple[datetime, str, str, int]] = []
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                units, price, invoice = int(row["Quantity"]), Decimal(row["UnitPrice"]), row["InvoiceNo"]
                code, customer = row["StockCode"].strip().upper(), row["CustomerID"].strip()
                when = datetime.fromisoformat(row["InvoiceDate"])
                if not is_goods(code) or price <= 0 or invoice.startswith("A"):
                    continue
                if invoice.startswith("C") and customer and units < 0:
                    taken_back.append((when, customer, code, -units))
                elif units > 0 and not invoice.startswith("C"):
                    rate = vat(row["Country"].strip(), when)
                    bought[customer, code].append(Purchase(when, invoice, units, units, price, rate))
    found: defaultdict[str, Month] = defaultdict(Month)
    for purchases in bought.values():
        purchases.sort(key=lambda one: (one.when, one.invoice))
        for one in purchases:
            month = found[one.when.strftime("%Y-%m")]
            month.sold += one.worth
            month.sold_tax += one.tax
    for when, customer, code, units in sorted(taken_back, key=lambda one: one[0]):
        for one in reversed(bought[customer, code]):
            if one.when <= when and one.left >= units:
                worth, tax = one.worth, one.tax
                one.left -= units
                month = found[when.strftime("%Y-%m")]
                month.back += worth - one.worth
                month.back_tax += tax - one.tax
                break
    return dict(sorted(found.items()))


def totals(paths: list[str]) -> tuple[Decimal, Decimal]:
    """Purchases, and purchases less cancellations, in GBP."""
    of = months(paths).values()
    gross = sum((month.sold for month in of), Decimal(0))
    return gross, gross - sum((month.back for month in of), Decimal(0))


if __name__ == "__main__":
    for name, month in months(sys.argv[1:]).items():
        print(
            f"{name}  sold {month.sold:,.2f}, tax {month.sold_tax:,.2f}; back {month.back:,.2f}, {month.back_tax:,.2f}"
        )
    print("purchases {:,.2f}, less cancellations {:,.2f}".format(*totals(sys.argv[1:])))
