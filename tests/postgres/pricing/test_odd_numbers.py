"""A zero with a huge exponent is no price: it is refused at the door, by field."""

from __future__ import annotations

import pytest

from services.pricing.api import routes
from shared.app import build_app
from shared.health import Health
from shared.postgres import Database
from tests.support.http import Issuer, client_of


@pytest.mark.parametrize("number", ["0E+1000000", "0E+131073", "0e500", "0E-1000000"])
async def test_a_zero_with_a_huge_exponent_is_refused_by_field(database: Database, number: str):
    issuer = Issuer()
    app = build_app("pricing", routes(database), Health())
    app.state.authenticator = issuer.authenticator()
    async with client_of(app, issuer.token("prices:read prices:write")) as client:
        await client.put("/price-lists/retail", json={"name": "Retail", "currency": "EUR"})
        lines = [{"sku": "BLUE-CUP", "unit_price": "4.50"}, {"sku": "RED-LAMP", "unit_price": number}]
        prices = await client.post("/prices", json={"price_list": "retail", "lines": lines})
        points = await client.put("/point-values/EUR", json={"value": number})
        coupon = await client.put("/coupons/FIVE", json={"amount": "5", "currency": "EUR", "minimum": number})
    assert (prices.status_code, fields(prices.json())) == (422, ["lines.1.unit_price"])
    assert points.status_code in (404, 422)
    assert (coupon.status_code, fields(coupon.json())) == (422, ["minimum"])


def fields(problem: dict[str, list[dict[str, str]]]) -> list[str]:
    return [error["field"] for error in problem["errors"]]
