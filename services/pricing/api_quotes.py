"""HTTP: quotes, which orders may redeem, and how orders were priced."""

from __future__ import annotations

from collections.abc import Container
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import uuid_utils
from fastapi import APIRouter

from services.pricing import quotes, store
from services.pricing.asks import Ask, Refusal
from services.pricing.bodies import HowPriced, QuoteAsked, QuotedLine, QuoteShown
from services.pricing.redemption import Quote
from services.pricing.rules import price
from shared.auth import Principal, requires
from shared.events.order import OrderLine
from shared.events.pricing import PricedLine
from shared.money import round_money
from shared.postgres import Database
from shared.problems import Problem

REFUSED_FIELDS = {"points_exceed_total": "points"}  # all others are the coupon's, or single lines'


def routes(database: Database, quote_minutes: int) -> APIRouter:
    router = APIRouter(tags=["quotes"])

    @router.post("/quotes", summary="What an order would cost now, and why; for a while it may be ordered at that")
    async def post_quote(body: QuoteAsked, _: Annotated[Principal, requires("prices:read")]) -> QuoteShown:
        minutes = quote_minutes if body.valid_minutes is None else body.valid_minutes
        if minutes > quote_minutes:
            raise Problem(422, "Invalid input", f"a quote is valid for {quote_minutes} minutes at most", code="invalid",
                          errors=[{"field": "valid_minutes", "message": f"at most {quote_minutes}"}])  # fmt: skip
        lines = [OrderLine(line=i, sku=one.sku, quantity=one.quantity) for i, one in enumerate(body.lines, 1)]
        ask = Ask(body.currency, lines, body.country, datetime.now(UTC), body.customer_id, body.coupon, body.points)
        async with database.transaction() as tx:
            rules = await store.load_rules(tx.db, ask)
            # A product that is not known yet has no tax class yet: a quote would promise the wrong tax.
            unknown = tuple(sorted({line.sku for line in lines} - set(rules.tax_classes)))
            outcome = Refusal("no_price", "unknown SKU", unknown) if unknown else price(rules, ask)
            if isinstance(outcome, Refusal):
                raise _refused(outcome, body, rules.tax_classes)
            quote_id = UUID(str(uuid_utils.uuid7()))
            valid_until = await quotes.insert(tx, quote_id, ask, outcome, minutes)
        return _shown(Quote(quote_id, ask, outcome, valid_until))

    @router.get("/quotes/{quote_id}", summary="A quote as it was given, and which order has used it")
    async def get_quote(quote_id: UUID, _: Annotated[Principal, requires("prices:read")]) -> QuoteShown:
        async with database.reading() as db:
            found = await quotes.get(db, quote_id)
        if found is None:
            raise Problem(404, "Not found", f"no quote {quote_id}; those that are past and unused are deleted")
        return _shown(found)

    @router.get("/orders/{order_id}/price", summary="How an order was priced")
    async def get_order_price(order_id: UUID, _: Annotated[Principal, requires("prices:read")]) -> HowPriced:
        async with database.reading() as db:
            row = await store.order_price(db, order_id)
        if row is None:
            raise Problem(404, "Not found", f"order {order_id} has not been seen here")
        return HowPriced(order_id=order_id, state=row["state"], coupon_held=row["coupon"], answer=row["answer"])

    return router


def _refused(refusal: Refusal, body: QuoteAsked, known: Container[str]) -> Problem:
    errors = [
        {"field": f"lines.{number}.sku", "message": "has no price" if line.sku in known else "unknown SKU"}
        for number, line in enumerate(body.lines)
        if line.sku in refusal.skus
    ] or [{"field": REFUSED_FIELDS.get(refusal.reason, "coupon"), "message": refusal.detail}]
    return Problem(422, "No price", refusal.detail, code=refusal.reason, errors=errors[:50])


def _shown(quote: Quote) -> QuoteShown:
    ask, priced = quote.ask, quote.priced
    zero = round_money(Decimal(0), ask.currency)

    def explained(line: PricedLine) -> QuotedLine:
        by_coupon = line.coupon_discount or zero
        return QuotedLine(
            **line.model_dump(include={"line", "sku", "quantity", "price_list", "unit_price", "total", "tax"}),
            tier_percent=priced.tier_percent,
            tier_discount=line.discount - by_coupon,
            coupon_discount=by_coupon,
            tax_percent=line.tax_percent or Decimal(0),
        )

    return QuoteShown(
        quote_id=quote.quote_id,
        valid_until=quote.valid_until,
        state=quote.state,
        order_id=quote.order_id,
        country=ask.country,
        customer_id=ask.customer_id,
        points=ask.points,
        currency=ask.currency,
        tier=priced.tier,
        coupon=priced.coupon,
        lines=[explained(line) for line in priced.lines],
        discount=priced.discount,
        points_value=priced.points_value,
        point_value=priced.point_value,
        tax=priced.tax,
        total=priced.total,
    )
