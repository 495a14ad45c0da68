"""HTTP: coupons, tier rules, tax rates and the value of points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import TypeAdapter

from services.pricing import bodies, catalogue, commands, coupons, discounts
from services.pricing.bodies import (
    Code,
    Country,
    CouponTerms,
    CouponUses,
    Name,
    PointValue,
    TaxRate,
    TaxRates,
    TierRule,
)
from shared import paging
from shared.auth import Principal, requires
from shared.money import Currency
from shared.paging import Cursor, Limit, Page
from shared.postgres import Database
from shared.problems import Problem

NO_ORDER = UUID(int=0)


def routes(database: Database) -> Sequence[APIRouter]:
    return (_coupons(database), _rules(database))


def _coupons(database: Database) -> APIRouter:
    router = APIRouter(tags=["coupons"])

    @router.put("/coupons/{code}", summary="Create or change a coupon; its uses stay")
    async def put_coupon(
        code: Code, body: CouponTerms, _: Annotated[Principal, requires("prices:write")]
    ) -> bodies.Coupon:
        async with database.transaction() as tx:
            await commands.put_coupon(tx, discounts.Coupon(code=code, **body.model_dump()))
            row = await coupons.get(tx.db, code)
        assert row is not None
        return bodies.Coupon(**row)

    @router.get("/coupons", summary="All coupons")
    async def get_coupons(
        _: Annotated[Principal, requires("prices:read")], cursor: Cursor = None, limit: Limit = 100
    ) -> Page[bodies.Coupon]:
        (after,) = paging.decode(cursor, 1) or ("",)
        async with database.reading() as db:
            items = [bodies.Coupon(**row) for row in await coupons.page(db, str(after), limit)]
        return Page(items=items, next=paging.encode(items[-1].code) if len(items) == limit else None)

    @router.get("/coupons/{code}", summary="A coupon and the orders that use it, or did")
    async def get_coupon(
        code: Code, _: Annotated[Principal, requires("prices:read")], cursor: Cursor = None, limit: Limit = 100
    ) -> CouponUses:
        after = _order_cursor(cursor)
        async with database.reading() as db:
            row = await coupons.get(db, code)
            uses = await coupons.uses(db, code, after, limit)
        if row is None:
            raise Problem(404, "Not found", f"no coupon {code}")
        next_ = paging.encode(uses[-1]["order_id"]) if len(uses) == limit else None
        return CouponUses(**row, uses=[bodies.Use(**use) for use in uses], next=next_)

    return router


def _order_cursor(cursor: str | None) -> UUID:
    (after,) = paging.decode(cursor, 1) or (NO_ORDER,)
    try:
        return UUID(str(after))
    except ValueError as error:
        raise paging.not_a_cursor() from error


def _rules(database: Database) -> APIRouter:
    router = APIRouter(tags=["rules"])

    @router.put("/tier-rules/{tier}", summary="Set what a tier takes off list prices")
    async def put_tier_rule(
        tier: Name, body: bodies.TierTerms, _: Annotated[Principal, requires("prices:write")]
    ) -> TierRule:
        async with database.transaction() as tx:
            await commands.put_tier_rule(tx, tier, body.percent, body.priority)
        return TierRule(tier=tier, **body.model_dump())

    @router.get("/tier-rules", summary="What tiers take off list prices")
    async def get_tier_rules(_: Annotated[Principal, requires("prices:read")]) -> list[TierRule]:
        async with database.reading() as db:
            return [TierRule(**row) for row in await catalogue.tier_rules(db)]

    @router.put("/tax-rates", summary="Set tax rates, all or none; others stay")
    async def put_tax_rates(body: TaxRates, _: Annotated[Principal, requires("prices:write")]) -> TaxRates:
        rates = [(rate.country, rate.tax_class, rate.percent, rate.valid_from) for rate in body.rates]
        async with database.transaction() as tx:
            await catalogue.save_tax_rates(tx, sorted(rates))
        return body

    @router.get("/tax-rates", summary="Tax rates, with their history")
    async def get_tax_rates(
        _: Annotated[Principal, requires("prices:read")], country: Annotated[Country | None, Query()] = None
    ) -> list[TaxRate]:
        async with database.reading() as db:
            return TypeAdapter(list[TaxRate]).validate_python([dict(r) for r in await catalogue.tax_rates(db, country)])

    @router.put("/point-values/{currency}", summary="Set what a point is worth; 0.01 where nothing is set")
    async def put_point_value(
        currency: Currency, body: bodies.PointTerms, _: Annotated[Principal, requires("prices:write")]
    ) -> PointValue:
        async with database.transaction() as tx:
            await catalogue.save_point_value(tx, currency, body.value)
        return PointValue(currency=currency, value=body.value)

    @router.get("/point-values", summary="What a point is worth")
    async def get_point_values(_: Annotated[Principal, requires("prices:read")]) -> list[PointValue]:
        async with database.reading() as db:
            return [PointValue(**row) for row in await catalogue.point_values(db)]

    return router
