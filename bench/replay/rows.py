"""Rows of Online Retail files, and what each of them is: every row gets exactly one verdict.

The format (UCI Machine Learning Repository, "Online Retail", Chen 2015): InvoiceNo, StockCode, Description, Quantity,
InvoiceDate, UnitPrice, CustomerID, Country; comma-separated with a header, UTF-8, optionally gzip.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from zoneinfo import ZoneInfo

LOCAL_TIME = ZoneInfo("Europe/London")
COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
MAX_UNITS = 1_000_000  # per line, as the order service takes them

# Codes that stand for postage, fees, discounts, vouchers and the like, after the data set's description.
NO_PRODUCT = re.compile(r"POST|DOT|[A-Z]|C2|BANK CHARGES|AMAZONFEE|CRUK|PADS|GIFT_.*", re.ASCII)

# What can be a SKU on the platform, with room for a prefix.
SKU = re.compile(r"[^\s/\0]([^/\0]{0,54}[^\s/\0])?")

PURCHASE, CANCELLATION = "purchase", "cancellation"


@dataclass(frozen=True)
class Row:
    """One line of a file; ``sku`` in upper case, since the files write one product both ways."""

    file: str
    number: int
    invoice: str
    sku: str
    description: str
    quantity: int
    at: datetime
    unit_price: Decimal
    customer: str | None
    country: str

    @property
    def amount(self) -> Decimal:
        """Quantity times price, half up to the cent."""
        return part(self, self.quantity)


def part(row: Row, units: int) -> Decimal:
    """What so many units of a row cost."""
    return (units * row.unit_price).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)


class FormatError(Exception):
    """A file that is not in the format at all."""


def files(path: Path) -> list[Path]:
    """The csv and csv.gz files that ``path`` names, in order of their names. Raises FormatError when there are none."""
    found = [path] if path.is_file() else sorted([*path.glob("*.csv"), *path.glob("*.csv.gz")])
    if not found:
        raise FormatError(f"{path} is neither a file nor a folder with .csv or .csv.gz files")
    return found


def read(path: Path) -> Iterator[tuple[str, Row | None]]:
    """Every row of a file with its verdict: ``purchase``, ``cancellation``, or the reason why it is set aside."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        try:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise FormatError(f"{path.name} lacks the columns {', '.join(missing)}")
            for number, fields in enumerate(reader, 1):
                row = parse(path.name, number, fields)
                yield (verdict(row), row) if isinstance(row, Row) else (row, None)
        except (UnicodeDecodeError, OSError, csv.Error) as error:
            raise FormatError(f"{path.name} cannot be read: {error}") from error


def parse(file: str, number: int, fields: Mapping[str | None, str | None]) -> Row | str:
    """The row in these fields, or why there is none."""
    text = {name: (fields.get(name) or "").replace("\0", "").strip() for name in COLUMNS}
    if not text["InvoiceNo"] or not text["StockCode"] or None in fields:
        return "malformed: fields missing or too many"
    try:
        quantity = Decimal(text["Quantity"])
        price = Decimal(text["UnitPrice"])
        at = datetime.fromisoformat(text["InvoiceDate"])
    except (InvalidOperation, ValueError):
        return "malformed: quantity, price or date"
    if not (quantity.is_finite() and price.is_finite()) or quantity != int(quantity):
        return "malformed: quantity, price or date"
    return Row(
        file, number, text["InvoiceNo"].upper(), text["StockCode"].upper(), text["Description"], int(quantity),
        at if at.tzinfo else at.replace(tzinfo=LOCAL_TIME), price, _customer(text["CustomerID"]), text["Country"],
    )  # fmt: skip


def _customer(text: str) -> str | None:
    """A customer number without the decimals that a spreadsheet gave it."""
    return re.sub(r"\.0+$", "", text) or None


def verdict(row: Row) -> str:
    """What a row is. The first rule that applies decides, so that every row is counted once."""
    if NO_PRODUCT.fullmatch(row.sku):
        return "not a product (postage, fee, discount, voucher)"
    if not SKU.fullmatch(row.sku):
        return "malformed: no possible stock code"
    if row.unit_price <= 0:
        return "no price (gift, note, correction)"
    if row.invoice.startswith("A"):
        return "accounting adjustment"
    if row.quantity == 0:
        return "malformed: quantity, price or date"
    if row.invoice.startswith("C"):
        return CANCELLATION if row.quantity < 0 else "cancellation with a positive quantity"
    if row.quantity < 0:
        return "stock write-off: negative, and no invoice to undo"
    if row.quantity > MAX_UNITS or row.unit_price >= 1_000_000:
        return "absurd quantity or price"
    return PURCHASE
