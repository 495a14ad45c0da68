"""HTTP: the product master, stock and its movements; levels and availability for everyone who asks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from services.inventory import commands, master
from services.inventory.commands import Movement
from shared import bodies, idempotency, paging
from shared.auth import Principal, requires
from shared.commands import IdempotencyKey, command_cause
from shared.countries import Country
from shared.events.inventory import ItemRegistered
from shared.money import Currency
from shared.paging import Cursor, Limit, Page
from shared.postgres import Database
from shared.problems import Problem

Sku = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\s/]([^/]*[^\s/])?$")]
Code = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^\S+$")]
Quantity = Annotated[int, Field(ge=1, le=1_000_000_000, strict=True)]


class Body(bodies.Body):
    model_config = ConfigDict(str_max_length=500)


class Warehouse(Body):
    name: str
    country: Country
    priority: int = Field(default=100, ge=0, le=1_000_000, description="lower is tried first")


class Item(Body):
    sku: Sku
    name: Annotated[str, Field(min_length=1)]
    category: str | None = None
    supplier: str | None = None
    unit: str = "piece"
    weight: Annotated[int, Field(ge=0, le=100_000_000, description="grams")] | None = None
    tax_class: Code = "standard"
    active: bool = True


class Items(Body):
    items: Annotated[list[Item], Field(min_length=1, max_length=2000)]

    @model_validator(mode="after")
    def _once_each(self) -> Items:
        if len({item.sku for item in self.items}) < len(self.items):
            raise ValueError("a SKU is named twice")
        return self


class Receipt(Body):
    sku: Sku
    warehouse: Code
    quantity: Quantity
    unit_cost: Annotated[Decimal, Field(ge=0, max_digits=18, decimal_places=6)] | None = None
    currency: Currency | None = None

    @model_validator(mode="after")
    def _cost_has_currency(self) -> Receipt:
        if (self.unit_cost is None) != (self.currency is None):
            raise ValueError("unit_cost and currency go together")
        return self


class Receipts(Body):
    lines: Annotated[list[Receipt], Field(min_length=1, max_length=2000)]
    occurred_at: AwareDatetime | None = None


class Adjustment(Body):
    sku: Sku
    warehouse: Code
    quantity: Annotated[
        int, Field(ge=-1_000_000_000, le=1_000_000_000, strict=True, description="the difference, as in -3")
    ]
    reason: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _something(self) -> Adjustment:
        if self.quantity == 0:
            raise ValueError("quantity is 0: nothing to adjust")
        return self


class Adjustments(Body):
    lines: Annotated[list[Adjustment], Field(min_length=1, max_length=2000)]
    occurred_at: AwareDatetime | None = None


class Level(BaseModel):
    warehouse: str
    on_hand: int
    reserved: int
    available: int


class Stock(BaseModel):
    sku: str
    available: int
    levels: list[Level]


class Moved(BaseModel):
    """``available`` per SKU touched, over all warehouses, after the command."""

    lines: int
    available: dict[str, int]


class Registered(BaseModel):
    received: int
    changed: int


def routes(database: Database) -> Sequence[APIRouter]:
    return (_master(database), _stock(database))


def _master(database: Database) -> APIRouter:
    router = APIRouter(tags=["items"])

    @router.put("/warehouses/{code}", summary="Create or change a warehouse")
    async def put_warehouse(code: Code, body: Warehouse, _: Annotated[Principal, requires("items:write")]) -> Warehouse:
        async with database.transaction() as tx:
            await master.save_warehouse(tx, code, body.name, body.country, body.priority)
        return body

    @router.get("/warehouses", summary="All warehouses")
    async def get_warehouses(_: Annotated[Principal, requires("items:read")]) -> list[dict[str, Any]]:
        async with database.reading() as db:
            return [dict(row) for row in await master.list_warehouses(db)]

    @router.post("/items", summary="Create or change products, all or none")
    async def post_items(body: Items, _: Annotated[Principal, requires("items:write")]) -> Registered:
        now = datetime.now(UTC)
        items = [ItemRegistered(occurred_at=now, **item.model_dump()) for item in body.items]
        async with database.transaction() as tx:
            changed = await commands.register_items(tx, items, command_cause())
        return Registered(received=len(items), changed=changed)

    @router.get("/items", summary="The product master")
    async def get_items(
        _: Annotated[Principal, requires("items:read")], cursor: Cursor = None, limit: Limit = 100
    ) -> Page[Item]:
        (after,) = paging.decode(cursor, 1) or ("",)
        async with database.reading() as db:
            rows = await master.list_items(db, str(after), limit)
        items = [Item(**row) for row in rows]
        return Page(items=items, next=paging.encode(items[-1].sku) if len(items) == limit else None)

    @router.get("/items/{sku}", summary="One product")
    async def get_item(sku: str, _: Annotated[Principal, requires("items:read")]) -> Item:
        async with database.reading() as db:
            row = await master.get_item(db, sku)
        if row is None:
            raise Problem(404, "Not found", f"no item {sku}")
        return Item(**row)

    return router


def _stock(database: Database) -> APIRouter:
    router = APIRouter(tags=["stock"])

    async def move(
        kind: str, body: Receipts | Adjustments, movements: list[Movement], principal: Principal, key: str
    ) -> Moved:
        async with database.transaction() as tx:
            known = await idempotency.first_answer(tx, principal.subject, key, idempotency.fingerprint(body))
            if known is not None:
                return Moved.model_validate(known)
            at = body.occurred_at or datetime.now(UTC)
            cause = command_cause()
            stock = await commands.move_stock(tx, kind, movements, actor=principal.subject, at=at, cause=cause)
            answer = Moved(
                lines=len(movements), available={sku: stock.available(sku) for sku in sorted(stock.touched_skus)}
            )
            await idempotency.remember(tx, principal.subject, key, 200, answer.model_dump())
        return answer

    @router.post("/stock/receipts", summary="Book goods that came in, all lines or none")
    async def receive(
        body: Receipts, principal: Annotated[Principal, requires("stock:write")], idempotency_key: IdempotencyKey
    ) -> Moved:
        movements = [Movement(one.sku, one.warehouse, one.quantity, one.unit_cost, one.currency) for one in body.lines]
        return await move("receipt", body, movements, principal, idempotency_key)

    @router.post("/stock/adjustments", summary="Correct what is on hand by a difference, all lines or none")
    async def adjust(
        body: Adjustments, principal: Annotated[Principal, requires("stock:write")], idempotency_key: IdempotencyKey
    ) -> Moved:
        movements = [Movement(one.sku, one.warehouse, one.quantity, reason=one.reason) for one in body.lines]
        return await move("adjustment", body, movements, principal, idempotency_key)

    @router.get("/stock", summary="Levels of all SKUs, or of some")
    async def get_levels(
        _: Annotated[Principal, requires("stock:read")], sku: Annotated[list[str] | None, Query(max_length=500)] = None,
        cursor: Cursor = None, limit: Limit = 100,
    ) -> Page[Stock]:  # fmt: skip
        (after,) = paging.decode(cursor, 1) or ("",)
        async with database.reading() as db:
            rows = await master.list_stock(db, str(after), limit, sku)
        items = [Stock(**row) for row in rows]
        return Page(items=items, next=paging.encode(items[-1].sku) if len(items) == limit else None)

    @router.get("/stock/{sku}", summary="Levels of one SKU, per warehouse")
    async def get_level(sku: str, _: Annotated[Principal, requires("stock:read")]) -> Stock:
        async with database.reading() as db:
            rows = await master.list_stock(db, "", 1, [sku])
        if not rows:
            raise Problem(404, "Not found", f"no item {sku}")
        return Stock(**rows[0])

    @router.get("/availability", summary="What can be promised now, over all warehouses")
    async def get_availability(
        sku: Annotated[list[str], Query(min_length=1, max_length=500)], _: Annotated[Principal, requires("stock:read")]
    ) -> dict[str, int]:
        async with database.reading() as db:
            rows = await master.list_stock(db, "", len(sku), sku)
        return {row["sku"]: row["available"] for row in rows}

    @router.get("/stock/{sku}/movements", summary="How the stock of a SKU came about")
    async def get_movements(
        sku: str, _: Annotated[Principal, requires("stock:read")], cursor: Cursor = None, limit: Limit = 100,
        newest_first: bool = False,
    ) -> Page[dict[str, Any]]:  # fmt: skip
        (last,) = paging.decode(cursor, 1) or (2**63 - 1 if newest_first else 0,)
        if not isinstance(last, int) or not 0 <= last < 2**63:
            raise paging.not_a_cursor()
        read = master.list_last_movements if newest_first else master.list_movements
        async with database.reading() as db:
            rows = await read(db, sku, last, limit)
        items = [dict(row) for row in rows]
        return Page(items=items, next=paging.encode(items[-1]["id"]) if len(items) == limit else None)

    return router
