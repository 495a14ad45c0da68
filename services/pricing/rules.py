"""The rules of pricing: list price, tier, coupon, points and tax. No I/O, no clock.

Prices contain tax. Every amount is rounded half up to the currency's minor unit where it arises: per line for the
line's value, the tier's discount and the tax; once per order for a coupon, whose lines' shares then add up exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

from services.pricing.asks import Ask, Refusal
from services.pricing.discounts import ZERO, Coupon, TierRule, stacked
from shared.events.order import OrderLine
from shared.events.pricing import PricedLine
from shared.money import round_money

BASE_TIER = "base"
STANDARD_TAX_CLASS = "standard"
POINT_VALUE = Decimal("0.01")


@dataclass(frozen=True)
class Priced:
    """What an order costs. ``total`` = the lines' totals less ``points_value``; ``tax`` is the lines'.

    Points pay: they lower what is due, never the tax contained in the goods.
    """

    tier: str
    tier_percent: Decimal
    lines: tuple[PricedLine, ...]
    discount: Decimal
    points_value: Decimal
    tax: Decimal
    total: Decimal
    coupon: str | None
    point_value: Decimal | None = None  # of one point, in major units; quotes of an earlier release lack it


@dataclass(frozen=True)
class ListPrice:
    unit_price: Decimal
    price_list: str | None  # None: set by the channel


@dataclass
class Rules:
    """The part of the price lists, tiers, coupons and tax rates that some orders need."""

    list_prices: Mapping[tuple[str, str, datetime], ListPrice] = field(
        default_factory=dict[tuple[str, str, datetime], ListPrice]
    )  # SKU, currency, time
    tiers: Mapping[UUID, str] = field(default_factory=dict[UUID, str])
    tier_rules: Mapping[str, TierRule] = field(default_factory=dict[str, TierRule])
    coupons: dict[str, Coupon] = field(default_factory=dict[str, Coupon])
    tax_classes: Mapping[str, str] = field(default_factory=dict[str, str])  # of known SKUs
    tax_rates: Mapping[tuple[str, str], Sequence[tuple[date, Decimal]]] = field(
        default_factory=dict[tuple[str, str], Sequence[tuple[date, Decimal]]]
    )  # country, tax class: valid from, percent; latest first
    point_values: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])

    def point_value(self, currency: str) -> Decimal:
        return self.point_values.get(currency, POINT_VALUE)

    def tax_percent(self, sku: str, country: str, at: datetime) -> Decimal:
        rates = self.tax_rates.get((country, self.tax_classes.get(sku, STANDARD_TAX_CLASS)), ())
        day = at.astimezone(UTC).date()
        return next((percent for valid_from, percent in rates if valid_from <= day), ZERO)


def price(rules: Rules, ask: Ask) -> Priced | Refusal:
    """What ``ask`` costs as if its coupon and its points were granted, or why it has no price.

    A price that the channel set is used as it is, without the tier's discount; a coupon is taken off all lines.
    """
    found = [_unit_price(rules, ask, line) for line in ask.lines]
    prices = [one for one in found if one is not None]
    if len(prices) < len(found):
        skus = tuple(dict.fromkeys(line.sku for line, one in zip(ask.lines, found, strict=True) if one is None))
        more = f" and {len(skus) - 20} more" if len(skus) > 20 else ""
        return Refusal("no_price", f"no price in {ask.currency} for {', '.join(skus[:20])}{more}", skus)
    values = [
        round_money(line.quantity * one.unit_price, ask.currency) for line, one in zip(ask.lines, prices, strict=True)
    ]
    coupon = rules.coupons.get(ask.coupon) if ask.coupon is not None else None
    if ask.coupon is not None:
        if coupon is None:
            return Refusal("coupon_unknown", f"there is no coupon {ask.coupon}")
        if (refusal := coupon.refusal(ask, sum(values, ZERO))) is not None:
            return refusal

    tier = rules.tiers.get(ask.customer_id, BASE_TIER) if ask.customer_id is not None else BASE_TIER
    rule = rules.tier_rules.get(tier, TierRule(ZERO))
    listed = [one.price_list is not None for one in prices]
    by_tier, by_coupon = stacked(values, listed, rule, coupon, ask.currency)
    totals = [value - one - other for value, one, other in zip(values, by_tier, by_coupon, strict=True)]
    worth = sum(totals, ZERO)
    point_value = rules.point_value(ask.currency)
    points_value = round_money(ask.points * point_value, ask.currency)
    if points_value > worth:
        return Refusal("points_exceed_total", f"{ask.points} points are worth {points_value}, the order {worth}")

    lines = [
        _line(line, one, first + second, second, total, rules.tax_percent(line.sku, ask.country, ask.at), ask.currency)
        for line, one, first, second, total in zip(ask.lines, prices, by_tier, by_coupon, totals, strict=True)
    ]
    return Priced(
        tier=tier,
        tier_percent=rule.percent,
        lines=tuple(lines),
        discount=sum((line.discount for line in lines), ZERO),
        points_value=points_value,
        tax=sum((line.tax for line in lines), ZERO),
        total=worth - points_value,
        coupon=coupon.code if coupon is not None else None,
        point_value=point_value,
    )


def _unit_price(rules: Rules, ask: Ask, line: OrderLine) -> ListPrice | None:
    if line.unit_price is not None:
        return ListPrice(line.unit_price, None)
    return rules.list_prices.get((line.sku, ask.currency, ask.at))


def _line(
    line: OrderLine, price: ListPrice, discount: Decimal, by_coupon: Decimal, total: Decimal, percent: Decimal,
    currency: str,
) -> PricedLine:  # fmt: skip
    return PricedLine(
        line=line.line,
        sku=line.sku,
        quantity=line.quantity,
        unit_price=price.unit_price,
        discount=round_money(discount, currency),
        total=total,
        tax=round_money(total * percent / (100 + percent), currency),
        price_list=price.price_list,
        coupon_discount=by_coupon or None,
        tax_percent=percent or None,
    )
