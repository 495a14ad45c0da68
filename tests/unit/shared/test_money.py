"""Money is rounded half up, and shares of it add up."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.money import MINOR_DIGITS, Currency, round_money, share


@pytest.mark.parametrize(
    ("amount", "currency", "rounded"),
    [
        ("0.005", "EUR", "0.01"), ("0.0049", "EUR", "0.00"), ("2.675", "GBP", "2.68"), ("-0.005", "EUR", "-0.01"),
        ("0.5", "JPY", "1"), ("1.0005", "KWD", "1.001"), ("1", "EUR", "1.00"), ("0.125", "XXX", "0.13"),
    ],
)  # fmt: skip
def test_half_a_unit_is_rounded_up(amount: str, currency: str, rounded: str):
    assert str(round_money(Decimal(amount), currency)) == rounded


@given(st.decimals(0, 10**9, places=2), st.integers(1, 1000), st.sampled_from(sorted(MINOR_DIGITS)))
def test_nothing_costs_nothing_and_all_costs_everything(total: Decimal, whole: int, currency: str):
    total = round_money(total, currency)
    assert share(total, 0, whole, currency) == 0
    assert share(total, whole, whole, currency) == total


@given(st.decimals(0, 10**6, places=2), st.integers(1, 100))
def test_more_units_never_cost_less(total: Decimal, whole: int):
    shares = [share(total, part, whole, "EUR") for part in range(whole + 1)]
    assert shares == sorted(shares)


def test_an_unknown_currency_is_refused():
    with pytest.raises(ValidationError, match="no currency known here"):
        TypeAdapter(Currency).validate_python("EURO")
