"""What travels over HTTP: bodies asked for and answers given, with their limits."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from shared import bodies
from shared.countries import Country
from shared.money import Amount, Currency, round_money

Sku = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\s\x00-\x1f]([^\x00-\x1f]*[^\s\x00-\x1f])?$")]
Label = Sku  # of a coupon that a buyer names, whether it exists or not
Code = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
ListCode = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9._-]+$")]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\s\x00-\x1f]+$")]
Instant = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), le=datetime(9000, 1, 1, tzinfo=UTC))]
Percent = Annotated[Decimal, Field(ge=0, le=100, max_digits=7, decimal_places=4)]
Price = Annotated[Amount, Field(ge=0)]
Priority = Annotated[int, Field(ge=0, le=1_000_000)]
Limit = Annotated[int, Field(ge=0, le=1_000_000_000_000, description="absent: unlimited")]


class Body(bodies.Body):
    model_config = ConfigDict(str_max_length=500)


class AskedLine(Body):
    sku: Sku
    quantity: Annotated[int, Field(ge=1, le=1_000_000)]


class QuoteAsked(Body):
    currency: Currency
    lines: Annotated[list[AskedLine], Field(min_length=1, max_length=2000)]
    country: Country
    coupon: Label | None = None
    points: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    customer_id: UUID | None = None
    valid_minutes: Annotated[int, Field(ge=1, le=525_600)] | None = Field(
        default=None, description="absent: as long as quotes are valid here, which is also the most"
    )


class QuotedLine(BaseModel):
    """``total`` = quantity times ``unit_price``, less tier and coupon; ``tax`` is contained in it."""

    line: int
    sku: str
    quantity: int
    price_list: str | None
    unit_price: Decimal
    tier_percent: Decimal
    tier_discount: Decimal
    coupon_discount: Decimal
    total: Decimal
    tax_percent: Decimal
    tax: Decimal


class QuoteShown(BaseModel):
    """What an order costs that names ``quote_id``, asks for the same, and is recorded before ``valid_until``.

    Prices, tier and tax stay; stock, points and the coupon's use are not held. ``state``: open; held by ``order_id``;
    spent, once that order is confirmed.
    """

    quote_id: UUID
    valid_until: datetime
    state: str
    order_id: UUID | None
    country: str
    customer_id: UUID | None
    points: int
    currency: str
    tier: str
    coupon: str | None
    lines: list[QuotedLine]
    discount: Decimal
    points_value: Decimal
    point_value: Annotated[
        Decimal | None, Field(description="of one point, in major units; not known of quotes made by an older release")
    ]
    tax: Decimal
    total: Decimal


class HowPriced(BaseModel):
    """``state``: priced, refused, or ended before it was seen. ``answer`` is what was published."""

    order_id: UUID
    state: str
    coupon_held: str | None
    answer: dict[str, Any] | None


class ListTerms(Body):
    name: Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f]+$")]
    currency: Currency
    priority: Priority = Field(default=100, description="of the lists in a currency, the highest that has the SKU wins")


class PriceList(ListTerms):
    code: str


class PriceLine(Body):
    sku: Sku
    unit_price: Price


class PricesAsked(Body):
    price_list: ListCode
    lines: Annotated[list[PriceLine], Field(min_length=1, max_length=2000)]
    valid_from: Instant | None = Field(default=None, description="absent: now")

    @model_validator(mode="after")
    def _once_each(self) -> PricesAsked:
        if len({line.sku for line in self.lines}) < len(self.lines):
            raise ValueError("a SKU is named twice")
        return self


class PricesChanged(BaseModel):
    """``unknown_skus`` are not (yet) in the product master: their price is kept for when they are."""

    received: int
    changed: int
    unknown_skus: list[str]


class PriceOfSku(BaseModel):
    sku: str
    price_list: str
    currency: str
    unit_price: Decimal
    valid_from: datetime
    in_force: bool


class TierTerms(Body):
    percent: Percent
    priority: Priority = Field(default=100, description="discounts stack by priority, lower first")


class TierRule(TierTerms):
    tier: str


class TaxRate(Body):
    country: Country
    tax_class: Name = "standard"
    percent: Percent
    valid_from: date = date(1970, 1, 1)


class TaxRates(Body):
    rates: Annotated[list[TaxRate], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _once_each(self) -> TaxRates:
        if len({(rate.country, rate.tax_class, rate.valid_from) for rate in self.rates}) < len(self.rates):
            raise ValueError("a country, tax class and day is named twice")
        return self


class PointTerms(Body):
    value: Annotated[Decimal, Field(gt=0, max_digits=12, decimal_places=6, description="of one point, in major units")]


class PointValue(PointTerms):
    currency: str


class CouponTerms(Body):
    """``percent`` or ``amount`` off. One that is limited per customer needs an order that names its customer."""

    percent: Annotated[Percent, Field(gt=0)] | None = None
    amount: Annotated[Amount, Field(gt=0)] | None = None
    currency: Currency | None = None
    valid_from: Instant | None = None
    valid_until: Instant | None = None
    minimum: Price | None = Field(default=None, description="value of the goods before any discount")
    limit_total: Limit | None = None
    limit_per_customer: Limit | None = None
    priority: Priority = Field(default=200, description="discounts stack by priority, lower first")

    @model_validator(mode="after")
    def _coherent(self) -> CouponTerms:
        if (self.percent is None) == (self.amount is None):
            raise ValueError("give either percent or amount")
        if self.currency is None and (self.amount is not None or self.minimum is not None):
            raise ValueError("amount and minimum need a currency")
        if (
            self.amount is not None
            and self.currency is not None
            and round_money(self.amount, self.currency) != self.amount
        ):
            raise ValueError("amount is finer than the currency's minor unit")
        if self.valid_from is not None and self.valid_until is not None and self.valid_from >= self.valid_until:
            raise ValueError("valid_until must come after valid_from")
        return self


class Coupon(BaseModel):
    """``used`` counts the uses that are held now."""

    code: str
    percent: Decimal | None
    amount: Decimal | None
    currency: str | None
    valid_from: datetime | None
    valid_until: datetime | None
    minimum: Decimal | None
    limit_total: int | None
    limit_per_customer: int | None
    priority: int
    used: int


class Use(BaseModel):
    order_id: UUID
    customer_id: UUID | None
    state: str


class CouponUses(Coupon):
    """A coupon with a page of its uses; ``next`` is the cursor of the following one."""

    uses: list[Use]
    next: str | None = None
