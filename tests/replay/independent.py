"""The totals of Online Retail files, computed from the files alone: it shares no code with the platform or its replay.

    python tests/replay/independent.py FILE...

prints what purchases are worth, and what is left when each cancellation has undone the latest earlier purchase of its
customer and product with enough left, at the price that was paid.
"""

import csv
import gzip
import sys
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

NOT_GOODS = {"POST", "DOT", "C2", "BANK CHARGES", "AMAZONFEE", "CRUK", "PADS"}


@dataclass
class Purchase:
    when: datetime
    invoice: str
    left: int
    price: Decimal

    @property
    def worth(self) -> Decimal:
        return (self.left * self.price).quantize(Decimal("0.01"), ROUND_HALF_UP)


def is_goods(code: str) -> bool:
    return not (code in NOT_GOODS or code.startswith("GIFT_") or (len(code) == 1 and code.isalpha()))


def totals(paths: list[str]) -> tuple[Decimal, Decimal]:
    """Purchases, and purchases less cancellations, in GBP."""
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
                    bought[customer, code].append(Purchase(when, invoice, units, price))
    gross = sum((one.worth for purchases in bought.values() for one in purchases), Decimal(0))
    for purchases in bought.values():
        purchases.sort(key=lambda one: (one.when, one.invoice))
    for when, customer, code, units in sorted(taken_back, key=lambda one: one[0]):
        for one in reversed(bought[customer, code]):
            if one.when <= when and one.left >= units:
                one.left -= units
                break
    return gross, sum((one.worth for purchases in bought.values() for one in purchases), Decimal(0))


if __name__ == "__main__":
    print("purchases {:.2f}, less cancellations {:.2f}".format(*totals(sys.argv[1:])))
