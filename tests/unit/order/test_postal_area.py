"""What is published of a recipient's postal code: its area, and of anything else that was entered there, nothing."""

from __future__ import annotations

import pytest

from services.order.intake import postal_area


@pytest.mark.parametrize(
    ("country", "code", "area"),
    [
        ("DE", "89073", "89"), ("DE", " 01067 ", "01"), ("AT", "1010", "10"), ("PL", "00-950", "00"),
        ("CZ", "110 00", "11"), ("NL", "1011 ab", "10"), ("PT", "1000-001", "10"), ("JP", "100-0001", "10"),
        ("US", "10001-1234", "10"), ("US", "10001", "10"), ("BR", "01310-100", "01"), ("CA", "k1a 0b1", "K1"),
        ("IE", "D02 AF30", "D0"), ("IS", "101", "10"), ("AR", "C1425CLA", "C1"), ("IN", "110001", "11"),
        ("GB", "SW1A 1AA", "SW1A"), ("GB", "sw1a1aa", "SW1A"), ("GB", "M1 1AE", "M1"), ("GB", "CR2 6XH", "CR2"),
    ],
)  # fmt: skip
def test_of_a_postal_code_the_area_is_published(country: str, code: str, area: str):
    assert postal_area(country, code) == area


@pytest.mark.parametrize("country", ["DE", "GB", "US", "XX"])
@pytest.mark.parametrize(
    "entered",
    [
        None, "", " ", "-", "Anna", "Anna Ash", "Anna-Ash", "anna@ash.example", "Ash, Anna", "AA", "Elm Row 1",
        "Elm 12", "unknown", "n/a", "none", "0171 2345678", "01712345678", "+49 171 2345678", "0049 171 2345678",
        "07700 900123", "(030) 123456", "030/1234567", "1", "12", "12345678901234567890", "Anna\n89073", "89073\nAnna",
        "89073 Ulm Anna", "\u0661\u0662\u0663\u0664\u0665",
    ],
    ids=repr,
)  # fmt: skip
def test_of_what_is_no_postal_code_nothing_is_published(country: str, entered: str | None):
    assert postal_area(country, entered) is None
