"""What the carrier says and is told."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

Status = Literal["booked", "collected", "in_transit", "delivered", "lost", "cancelled"]
Kind = Literal["collected", "in_transit", "delayed", "delivered", "lost"]  # what can happen to a parcel
NoticeType = Literal[
    "parcel.collected", "parcel.in_transit", "parcel.delayed", "parcel.delivered", "parcel.lost"
]  # how the merchant hears of it
Text = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class Recipient(BaseModel, extra="forbid"):
    name: Text
    street: Text
    city: Text
    postal_code: Text | None = None
    region: Text | None = None
    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
    phone: Text | None = None


class ParcelRequest(BaseModel, extra="forbid"):
    reference: Text
    warehouse: Text = Field(alias="from")
    recipient: Recipient
    weight: int | None = Field(default=None, ge=0, le=1_000_000_000, description="grams")
    units: int = Field(ge=1, le=1_000_000_000)


class Price(BaseModel):
    amount: str
    currency: str


class Parcel(BaseModel):
    """Without the recipient: only the label and the webhooks show whom a parcel is for."""

    id: str
    reference: str
    warehouse: str = Field(serialization_alias="from")
    weight: int | None
    units: int
    status: Status
    tracking_number: str
    label_url: str
    price: Price
    created_at: str
    updated_at: str
    promised_at: str
    expected_at: str | None = Field(description="when a delayed parcel is to come")
    delivered_at: str | None


class Move(BaseModel, extra="forbid"):
    status: Kind


class NoticeRequest(BaseModel, extra="forbid"):
    type: NoticeType
