"""Money: a decimal string outside and an integer of minor units inside."""

import re

from .problems import ProblemError

MINOR_DIGITS = {"BHD": 3, "CLP": 0, "ISK": 0, "JOD": 3, "JPY": 0, "KRW": 0, "KWD": 3, "OMR": 3, "TND": 3, "VND": 0}
AMOUNT = re.compile(r"(\d{1,12})(?:\.(\d{1,6}))?", re.ASCII)


def to_minor(amount: str, currency: str) -> int:
    """Return the amount in minor units, exactly. Raises ProblemError 422 unless positive and a whole number of them."""
    digits = MINOR_DIGITS.get(currency, 2)
    match = AMOUNT.fullmatch(amount)
    whole, fraction = (match[1], (match[2] or "").rstrip("0")) if match else ("0", "")
    minor = int(whole + fraction.ljust(digits, "0")) if len(fraction) <= digits else 0
    if minor <= 0:
        raise ProblemError(
            422, "Invalid amount", f"amount must be positive with at most {digits} decimals, not {amount!r}"
        )
    return minor


def to_text(minor: int, currency: str) -> str:
    """Write minor units as a decimal string with the currency's own number of decimals."""
    digits = MINOR_DIGITS.get(currency, 2)
    text = str(minor).rjust(digits + 1, "0")
    return f"{text[:-digits]}.{text[-digits:]}" if digits else text
