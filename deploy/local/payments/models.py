"""What the provider says and is told."""

from typing import Annotated, Literal

from pydantic import BaseModel, StringConstraints

Status = Literal["captured", "declined", "pending", "requires_action", "cancelled"]
Text = Annotated[str, StringConstraints(min_length=1, max_length=255)]


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
    fee: str  # what the provider keeps of a captured amount
    created_at: str


class Refund(BaseModel):
    id: str
    payment_id: str
    status: Literal["succeeded", "declined"]
    amount: str
    currency: str
    reference: str
    created_at: str
