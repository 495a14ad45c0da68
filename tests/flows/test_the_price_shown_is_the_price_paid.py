"""A quote is redeemed by one order: what the buyer was shown is paid, though the list price has changed meanwhile."""

from __future__ import annotations

from typing import Any

from tests.flows.market import Market


async def quoted(market: Market, *lines: tuple[str, int]) -> Any:
    asked = {"currency": "GBP", "country": "GB", "lines": [{"sku": sku, "quantity": n} for sku, n in lines]}
    answer = await market.platform.ask("pricing", "POST", "/quotes", json=asked)
    return answer.json()


async def test_a_price_raised_between_quote_and_order_is_not_paid(market: Market):
    lamp, cup = await market.lamps_and_cups()
    quote = await quoted(market, (lamp, 1), (cup, 2))
    assert (quote["total"], quote["state"]) == ("37.90", "open")
    await market.platform.prices("main", "GBP", {lamp: "29.90"}, market.name("raise"))
    assert (await quoted(market, (lamp, 1), (cup, 2)))["total"] == "42.90"

    shown = {"quote_id": quote["quote_id"], "expected_total": quote["total"]}
    order = await market.buy((lamp, 1), (cup, 2), **shown)
    assert (order["state"], order["total"], order["quote_id"]) == ("confirmed", "37.90", quote["quote_id"])
    assert order["payment"]["captured"] == "37.90"

    second = await market.buy((lamp, 1), (cup, 2), **shown)
    assert (second["state"], second["reason"]) == ("rejected", "quote_used")
    now = (await market.platform.ask("pricing", "GET", f"/quotes/{quote['quote_id']}")).json()
    assert (now["order_id"], now["total"]) == (order["order_id"], "37.90")


async def test_a_declined_payment_leaves_the_quote_for_another_try(market: Market):
    lamp, cup = await market.lamps_and_cups()
    quote = await quoted(market, (lamp, 1))
    await market.platform.prices("main", "GBP", {lamp: "29.90"}, market.name("raise"))
    declined = await market.buy((lamp, 1), token="tok_declined", quote_id=quote["quote_id"])
    assert (declined["state"], declined["reason"]) == ("rejected", "payment_declined")
    await market.gives_everything_back(declined["order_id"])
    other = await market.buy((cup, 1), quote_id=quote["quote_id"])
    assert (other["state"], other["reason"]) == ("rejected", "quote_differs")
    again = await market.buy((lamp, 1), quote_id=quote["quote_id"], expected_total="24.90")
    assert (again["state"], again["total"]) == ("confirmed", "24.90")
