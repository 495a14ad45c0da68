"""A zero with a huge exponent is a small body that no database takes: it is refused at the door, by field."""

from __future__ import annotations

from typing import Any

import pytest

from shared.postgres import Database
from tests.postgres.order.test_intake import bulk, count
from tests.support.shop import body, counter, open_shop

HUGE = ["0E+1000000", "0E+131073", "0e500", "-0E+1000000", "0E-1000000", "0E+999999999"]


def priced_at(number: str, reference: str = "shop-1") -> dict[str, Any]:
    return body(reference, lines=[{"sku": "RED-LAMP", "quantity": 1, "unit_price": number}])


@pytest.mark.parametrize("number", HUGE)
async def test_a_zero_with_a_huge_exponent_is_refused_by_field(database: Database, number: str):
    await open_shop(database)
    async with counter(database) as client:
        for order, field in (
            (priced_at(number), "lines.0.unit_price"),
            (body(expected_total=number), "expected_total"),
        ):
            answer = await client.post("/orders", json=order)
            assert answer.status_code == 422, answer.text
            assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert await count(database) == 0


async def test_a_plain_zero_is_a_price(database: Database):
    await open_shop(database)
    async with counter(database) as client:
        for reference, number in (("a", "0"), ("b", "0.00"), ("c", "0E+2")):
            assert (await client.post("/orders", json=priced_at(number, reference))).status_code == 201


@pytest.mark.parametrize("number", HUGE)
async def test_in_bulk_only_the_row_with_the_odd_number_fails(database: Database, number: str):
    await open_shop(database)
    async with counter(database) as client:
        lines = (body("a"), priced_at(number, "b"), body("c", expected_total=number), body("d"))
        assert await bulk(client, *lines) == [201, 422, 422, 201]
    assert await count(database) == 2
