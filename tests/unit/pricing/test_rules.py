"""Given rules, an order costs what they say, to the cent."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.pricing.asks import Ask, Refusal
from services.pricing.discounts import Coupon, TierRule, distribute
from services.pricing.rules import ListPrice, Priced, Rules, price
from shared.events.order import OrderLine

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANNA = UUID(int=1)
PRICES = {"RED-LAMP": "19.99", "BLUE-CUP": "4.50", "GREEN-MAT": "0.10"}


def rules(*coupons: Coupon, tier: str = "base", silver_priority: int = 100) -> Rules:
    return Rules(
        list_prices={(sku, "EUR", NOW): ListPrice(Decimal(amount), "retail") for sku, amount in PRICES.items()},
        tiers={ANNA: tier},
        tier_rules={"base": TierRule(Decimal(0)), "silver": TierRule(Decimal(3), silver_priority)},
        coupons={coupon.code: coupon for coupon in coupons},
        tax_classes={"RED-LAMP": "standard", "BLUE-CUP": "reduced"},
        tax_rates={
            ("DE", "standard"): [(date(2021, 1, 1), Decimal(19)), (date(2020, 7, 1), Decimal(16))],
            ("DE", "reduced"): [(date(2021, 1, 1), Decimal(7))],
        },
    )


def lines(**quantities: int) -> tuple[OrderLine, ...]:
    return tuple(
        OrderLine(line=number, sku=sku.replace("_", "-"), quantity=quantity)
        for number, (sku, quantity) in enumerate(quantities.items(), 1)
    )


def ask(
    *asked: OrderLine, currency: str = "EUR", coupon: str | None = None, points: int = 0, country: str = "DE",
    customer_id: UUID | None = ANNA, at: datetime = NOW,
) -> Ask:  # fmt: skip
    return Ask(currency, asked or lines(RED_LAMP=1, BLUE_CUP=2), country, at, customer_id, coupon, points)


def priced(outcome: Priced | Refusal) -> Priced:
    assert isinstance(outcome, Priced), outcome
    return outcome


def refused(outcome: Priced | Refusal) -> str:
    assert isinstance(outcome, Refusal), outcome
    return outcome.reason


def test_one_red_lamp_and_two_blue_cups_cost_their_list_prices_with_tax_contained() -> None:
    outcome = priced(price(rules(), ask()))
    assert outcome.total == Decimal("28.99")
    assert [line.tax for line in outcome.lines] == [Decimal("3.19"), Decimal("0.59")]
    assert outcome.tax == Decimal("3.78")
    assert [line.price_list for line in outcome.lines] == ["retail", "retail"]


def test_a_country_without_rates_has_no_tax() -> None:
    assert priced(price(rules(), ask(country="XX"))).tax == 0


def test_the_rate_is_that_of_the_day() -> None:
    then = datetime(2020, 8, 1, tzinfo=UTC)
    line = OrderLine(line=1, sku="RED-LAMP", quantity=1, unit_price=Decimal("116.00"))
    assert priced(price(rules(), ask(line, at=then))).tax == Decimal("16.00")


def test_half_a_cent_is_rounded_up() -> None:
    line = OrderLine(line=1, sku="RED-LAMP", quantity=3, unit_price=Decimal("0.335"))
    assert priced(price(rules(), ask(line))).total == Decimal("1.01")


def test_yen_have_no_decimals() -> None:
    line = OrderLine(line=1, sku="RED-LAMP", quantity=1, unit_price=Decimal("99.5"))
    assert priced(price(rules(), ask(line, currency="JPY"))).total == Decimal(100)


def test_silver_gets_three_percent_off_and_a_guest_does_not() -> None:
    silver = rules(tier="silver")
    assert priced(price(silver, ask())).total == Decimal("28.12")  # 0.60 off the lamp, 0.27 off the cups
    assert priced(price(silver, ask(customer_id=None))).total == Decimal("28.99")


def test_a_channels_own_price_is_not_discounted_by_tier() -> None:
    line = OrderLine(line=1, sku="NEVER-LISTED", quantity=2, unit_price=Decimal("10"))
    outcome = priced(price(rules(tier="silver"), ask(line)))
    assert (outcome.total, outcome.lines[0].price_list) == (Decimal("20.00"), None)


def test_a_sku_without_a_price_is_named() -> None:
    outcome = price(rules(), ask(*lines(RED_LAMP=1, PINK_TOAD=1)))
    assert isinstance(outcome, Refusal)
    assert (outcome.reason, outcome.skus) == ("no_price", ("PINK-TOAD",))
    assert "PINK-TOAD" in outcome.detail


def test_a_fixed_coupon_is_spread_over_the_lines_to_the_cent() -> None:
    outcome = priced(price(rules(Coupon("TEN", amount=Decimal(10), currency="EUR")), ask(coupon="TEN")))
    assert [line.discount for line in outcome.lines] == [Decimal("6.90"), Decimal("3.10")]
    assert (outcome.discount, outcome.total, outcome.coupon) == (Decimal(10), Decimal("18.99"), "TEN")


def test_a_fixed_coupon_never_takes_more_than_the_goods_are_worth() -> None:
    outcome = priced(price(rules(Coupon("HUGE", amount=Decimal(500), currency="EUR")), ask(coupon="HUGE")))
    assert (outcome.discount, outcome.total, outcome.tax) == (Decimal("28.99"), 0, 0)


def test_discounts_stack_by_priority() -> None:
    ten = Coupon("TEN", amount=Decimal(10), currency="EUR")
    tier_first = price(rules(ten, tier="silver"), ask(*lines(RED_LAMP=10), coupon="TEN"))
    assert priced(tier_first).total == Decimal("183.90")  # 199.90 - 6.00 - 10
    coupon_first = price(rules(ten, tier="silver", silver_priority=300), ask(*lines(RED_LAMP=10), coupon="TEN"))
    assert priced(coupon_first).total == Decimal("184.20")  # 199.90 - 10 - 5.70


def test_a_coupon_says_why_it_is_refused() -> None:
    march, april = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    percent = Decimal(10)
    for coupon, reason in [
        (Coupon("C", percent, currency="GBP"), "coupon_not_valid"),
        (Coupon("C", percent, valid_from=april), "coupon_not_valid"),
        (Coupon("C", percent, valid_until=march), "coupon_not_valid"),
        (Coupon("C", percent, currency="EUR", minimum=Decimal("29")), "coupon_minimum"),
        (Coupon("C", percent, limit_total=3, used=3), "coupon_used_up"),
        (Coupon("C", percent, limit_per_customer=1, held_by={ANNA: 1}), "coupon_used_up"),
    ]:
        assert refused(price(rules(coupon), ask(coupon="C"))) == reason
    assert refused(price(rules(), ask(coupon="C"))) == "coupon_unknown"


def test_a_guest_may_use_a_coupon_limited_in_total_but_not_one_limited_per_customer() -> None:
    anyone, each = Coupon("ANYONE", Decimal(10), limit_total=5), Coupon("EACH", Decimal(10), limit_per_customer=1)
    assert priced(price(rules(anyone), ask(coupon="ANYONE", customer_id=None))).coupon == "ANYONE"
    assert refused(price(rules(each), ask(coupon="EACH", customer_id=None))) == "coupon_not_valid"
    assert priced(price(rules(each), ask(coupon="EACH"))).coupon == "EACH"


def test_points_pay_and_leave_the_tax_as_it_is() -> None:
    outcome = priced(price(rules(), ask(points=899)))
    assert (outcome.points_value, outcome.total, outcome.tax) == (Decimal("8.99"), Decimal("20.00"), Decimal("3.78"))
    assert priced(price(rules(), ask(points=2899))).total == 0
    assert refused(price(rules(), ask(points=2900))) == "points_exceed_total"


CENTS = st.decimals(0, 10_000, places=2)


@given(st.lists(CENTS, min_size=1, max_size=40), st.integers(0, 1000))
def test_shares_sum_exactly_and_none_exceeds_its_value(values: Sequence[Decimal], permille: int) -> None:
    whole = sum(values, Decimal(0))
    amount = (whole * permille / 1000).quantize(Decimal("0.01"))
    amount = min(amount, whole)
    shares = distribute(amount, values, "EUR")
    assert sum(shares) == amount
    assert all(0 <= share <= value for share, value in zip(shares, values, strict=True))


@given(
    asked=st.lists(
        st.tuples(
            st.sampled_from(sorted(PRICES)), st.integers(1, 1000), st.none() | st.decimals("0", "99", places=3)
        ),
        min_size=1, max_size=20,
    ),
    off=st.one_of(
        st.builds(Coupon, code=st.just("C"), percent=st.decimals("0.01", "100", places=2)),
        st.builds(Coupon, code=st.just("C"), amount=st.decimals("0.01", "500", places=2), currency=st.just("EUR")),
    ),
    silver_priority=st.sampled_from([100, 300]), points=st.integers(0, 5000),
)  # fmt: skip
def test_every_price_adds_up_and_nothing_is_negative(
    asked: list[tuple[str, int, Decimal | None]], off: Coupon, silver_priority: int, points: int
) -> None:
    order = [OrderLine(line=n, sku=s, quantity=q, unit_price=p) for n, (s, q, p) in enumerate(asked, 1)]
    given_rules = rules(off, tier="silver", silver_priority=silver_priority)
    outcome = price(given_rules, ask(*order, coupon="C", points=points))
    if isinstance(outcome, Refusal):
        assert outcome.reason == "points_exceed_total"
        return
    assert sum(line.total for line in outcome.lines) - outcome.points_value == outcome.total >= 0
    assert sum(line.discount for line in outcome.lines) == outcome.discount >= 0
    assert sum(line.tax for line in outcome.lines) == outcome.tax
    for line in outcome.lines:
        assert 0 <= line.tax <= line.total
        assert 0 <= (line.coupon_discount or 0) <= line.discount
        assert line.total == line.total.quantize(Decimal("0.01"))
        assert abs(line.total + line.discount - line.quantity * line.unit_price) <= Decimal("0.005")
