"""What the provider says and is told. Money is a decimal string outside and an integer of minor units inside."""

import re
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, StringConstraints

Status = Literal["captured", "declined", "pending", "requires_action", "cancelled"]
Text = Annotated[str, StringConstraints(min_length=1, max_length=255)]

Item = TypeVar("Item", bound=BaseModel)

MINOR_DIGITS = {"BHD": 3, "CLP": 0, "ISK": 0, "JOD": 3, "JPY": 0, "KRW": 0, "KWD": 3, "OMR": 3, "TND": 3, "VND": 0}
AMOUNT = re.compile(r"(\d{1,12})(?:\.(\d{1,6}))?", re.ASCII)


class ProblemError(Exception):
    """A refusal, answered as application/problem+json (RFC 9457)."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail


class PaymentRequest(BaseModel, extra="forbid"):
    amount: Text
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    token: Text
    reference: Text


class RefundRequest(BaseModel, extra="forbid"):
    amount: Text
    reference: Text


class Payment(BaseModel):
    id: str
    status: Status
    decline_code: str | None
    redirect_url: str | None = None
    amount: str
    currency: str
    reference: str
    refunded: str
    created_at: str


class Refund(BaseModel):
    id: str
    payment_id: str
    status: Literal["succeeded", "declined"]
    amount: str
    currency: str
    reference: str
    created_at: str


class Page(BaseModel, Generic[Item]):
    """A stretch of the log, oldest first. `next_cursor` is null when nothing follows yet."""

    data: list[Item]
    next_cursor: str | None


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
