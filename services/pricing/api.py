"""HTTP: quotes, how orders were priced, price lists and their prices."""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query

from services.pricing import api_rules, bodies, catalogue, commands, store
from services.pricing.asks import Ask, Refusal
from services.pricing.bodies import HowPriced, ListCode, PricesAsked, PricesChanged, Quote, QuoteAsked, QuotedLine, Sku
from services.pricing.rules import Priced, price
from shared import idempotency, paging
from shared.auth import Principal, requires
from shared.commands import command_cause
from shared.events.order import OrderLine
from shared.events.pricing import PricedLine
from shared.money import round_money
from shared.paging import Cursor, Limit, Page
from shared.postgres import Database
from shared.problems import Problem

IdempotencyKey = Annotated[
    str | None, Header(min_length=1, max_length=200, description="sent again, finds the first answer")
]
EPOCH = datetime.fromtimestamp(0, UTC)
REFUSED_FIELDS = {"points_exceed_total": "points"}  # all others are the coupon's, or single lines'


def routes(database: Database) -> Sequence[APIRouter]:
    return (_quotes(database), _prices(database), *api_rules.routes(database))


def _quotes(database: Database) -> APIRouter:
    router = APIRouter(tags=["quotes"])

    @router.post("/quotes", summary="What an order would cost now, and why; nothing is held")
    async def quote(body: QuoteAsked, _: Annotated[Principal, requires("prices:read")]) -> Quote:
        lines = [OrderLine(line=i, sku=one.sku, quantity=one.quantity) for i, one in enumerate(body.lines, 1)]
        ask = Ask(body.currency, lines, body.country, datetime.now(UTC), body.customer_id, body.coupon, body.points)
        async with database.reading() as db:
            rules = await store.load_rules(db, ask)
        match price(rules, ask):
            case Refusal() as refusal:
                raise _refused(refusal, body, rules.tax_classes)
            case priced:
                return _quote(ask.currency, priced)

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


def _quote(currency: str, priced: Priced) -> Quote:
    zero = round_money(Decimal(0), currency)

    def explained(line: PricedLine) -> QuotedLine:
        by_coupon = line.coupon_discount or zero
        return QuotedLine(
            **line.model_dump(include={"line", "sku", "quantity", "price_list", "unit_price", "total", "tax"}),
            tier_percent=priced.tier_percent,
            tier_discount=line.discount - by_coupon,
            coupon_discount=by_coupon,
            tax_percent=line.tax_percent or Decimal(0),
        )

    return Quote(
        currency=currency,
        tier=priced.tier,
        coupon=priced.coupon,
        lines=[explained(line) for line in priced.lines],
        discount=priced.discount,
        points_value=priced.points_value,
        tax=priced.tax,
        total=priced.total,
    )


def _prices(database: Database) -> APIRouter:
    router = APIRouter(tags=["prices"])

    @router.put("/price-lists/{code}", summary="Create or change a price list")
    async def put_list(
        code: ListCode, body: bodies.ListTerms, _: Annotated[Principal, requires("prices:write")]
    ) -> bodies.PriceList:
        async with database.transaction() as tx:
            await commands.put_list(tx, code, body.name, body.currency, body.priority)
        return bodies.PriceList(code=code, **body.model_dump())

    @router.get("/price-lists", summary="All price lists")
    async def get_lists(_: Annotated[Principal, requires("prices:read")]) -> list[bodies.PriceList]:
        async with database.reading() as db:
            return [bodies.PriceList(**row) for row in await catalogue.all_lists(db)]

    @router.post("/prices", summary="Set prices of a list, all lines or none")
    async def post_prices(
        body: PricesAsked, principal: Annotated[Principal, requires("prices:write")],
        idempotency_key: IdempotencyKey = None,
    ) -> PricesChanged:  # fmt: skip
        prices = {line.sku: line.unit_price for line in body.lines}
        async with database.transaction() as tx:
            first = await idempotency.first_answer(
                tx, principal.subject, idempotency_key, idempotency.fingerprint(body)
            )
            if first is not None:
                return PricesChanged.model_validate(first)
            cause = command_cause(principal.subject, idempotency_key)
            done = await commands.change_prices(tx, body.price_list, prices, body.valid_from, cause)
            answer = PricesChanged(received=len(prices), changed=done.changed, unknown_skus=list(done.unknown_skus))
            await idempotency.remember(tx, principal.subject, idempotency_key, 200, answer.model_dump())
        return answer

    @router.get("/prices", summary="The prices of a SKU: past, in force, and to come")
    async def get_prices(
        sku: Annotated[Sku, Query()], _: Annotated[Principal, requires("prices:read")],
        cursor: Cursor = None, limit: Limit = 100,
    ) -> Page[bodies.PriceOfSku]:  # fmt: skip
        after = _price_cursor(cursor)
        async with database.reading() as db:
            rows = await catalogue.prices_of(db, sku, after, limit)
        items = [bodies.PriceOfSku(**row) for row in rows]
        full = len(items) == limit
        return Page(items=items, next=paging.encode(items[-1].price_list, items[-1].valid_from) if full else None)

    return router


def _price_cursor(cursor: str | None) -> tuple[str, datetime]:
    price_list, since = paging.decode(cursor, 2) or ("", EPOCH.isoformat())
    try:
        return str(price_list), datetime.fromisoformat(since).astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise Problem(422, "Invalid input", "the cursor is none that was given out", code="invalid",
                      errors=[{"field": "cursor", "message": "not a cursor"}]) from error  # fmt: skip
