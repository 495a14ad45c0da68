"""Money: Decimal and an ISO 4217 currency, never a float. Rounding is half up, to the currency's minor unit."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated

from pydantic import AfterValidator, Field

# The currencies that are accepted, with the digits of their minor unit (ISO 4217).
MINOR_DIGITS = {
    "AUD": 2, "BGN": 2, "BRL": 2, "CAD": 2, "CHF": 2, "CNY": 2, "CZK": 2, "DKK": 2, "EUR": 2, "GBP": 2, "HKD": 2,
    "HUF": 2, "ILS": 2, "INR": 2, "ISK": 0, "JPY": 0, "KRW": 0, "KWD": 3, "MXN": 2, "MYR": 2, "NOK": 2, "NZD": 2,
    "PHP": 2, "PLN": 2, "RON": 2, "SEK": 2, "SGD": 2, "THB": 2, "TND": 3, "TRY": 2, "TWD": 2, "UAH": 2, "USD": 2,
    "VND": 0, "ZAR": 2,
}  # fmt: skip


def known_currency(code: str) -> str:
    if code not in MINOR_DIGITS:
        raise ValueError(f"{code!r} is no currency known here; known are {', '.join(MINOR_DIGITS)}")
    return code


Currency = Annotated[str, AfterValidator(known_currency)]
"""An accepted ISO 4217 code; events carry plain strings, so that an old reader survives a new currency."""

Amount = Annotated[Decimal, Field(max_digits=18, decimal_places=6)]
"""An amount or unit price in major units; a unit price may be finer than the minor unit."""


def round_money(amount: Decimal, currency: str) -> Decimal:
    """``amount`` rounded half up to the minor unit of ``currency``."""
    return amount.quantize(Decimal(1).scaleb(-MINOR_DIGITS.get(currency, 2)), rounding=ROUND_HALF_UP)


def share(total: Decimal, part: int, whole: int, currency: str) -> Decimal:
    """What ``part`` of ``whole`` units costs of ``total``; 0 of n costs nothing and n of n all of it, to the cent."""
    return round_money(total * part / whole, currency)
