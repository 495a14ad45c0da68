"""HTTP: price lists and their prices; quotes and rules have files of their own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from services.pricing import api_demand, api_quotes, api_rules, bodies, catalogue, commands
from services.pricing.bodies import ListCode, PricesAsked, PricesChanged, Sku
from services.pricing.settings import QUOTE_MINUTES
from shared import idempotency, paging
from shared.auth import Principal, requires
from shared.commands import OptionalKey, command_cause
from shared.paging import Cursor, Limit, Page
from shared.postgres import Database

EPOCH = datetime.fromtimestamp(0, UTC)


def routes(database: Database, quote_minutes: int = QUOTE_MINUTES) -> Sequence[APIRouter]:
    return (
        api_quotes.routes(database, quote_minutes),
        _prices(database),
        api_demand.routes(database),
        *api_rules.routes(database),
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
        idempotency_key: OptionalKey = None,
    ) -> PricesChanged:  # fmt: skip
        prices = {line.sku: line.unit_price for line in body.lines}
        async with database.transaction() as tx:
            first = await idempotency.first_answer(
                tx, principal.subject, idempotency_key, idempotency.fingerprint(body)
            )
            if first is not None:
                return PricesChanged.model_validate(first)
            cause = command_cause()
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
        raise paging.not_a_cursor() from error
