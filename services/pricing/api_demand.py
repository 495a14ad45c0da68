"""HTTP: what is asked for, per SKU and window of business time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from services.pricing import demand_store
from services.pricing.bodies import Sku
from shared import paging
from shared.auth import Principal, requires
from shared.bodies import Moment
from shared.paging import Cursor, Limit, Page
from shared.postgres import Database, Row
from shared.problems import Problem

HOUR = timedelta(hours=1)


class DemandWindow(BaseModel):
    """Units asked for from ``window_start`` to before ``window_end``, whether or not there was stock."""

    sku: str
    window_start: datetime
    window_end: datetime
    units: int
    orders: int
    measured_at: datetime | None = Field(description="null where nothing was asked for")


class DemandNow(BaseModel):
    """A signal to look, not a figure to reckon with: the process that measures it may have crashed a moment ago."""

    sku: str
    current: DemandWindow
    previous: DemandWindow
    units_per_hour: float = Field(description="over the previous window and the current one up to `at`")
    usual_units_per_hour: float = Field(description="over the windows before these two")
    trend: float | None = Field(description="units_per_hour by usual_units_per_hour; null where nothing is usual")


def routes(database: Database) -> APIRouter:
    router = APIRouter(tags=["demand"])

    @router.get("/demand", summary="Windows of SKUs in which something was asked for, newest first")
    async def get_windows(
        sku: Annotated[list[Sku], Query(min_length=1, max_length=100)],
        _: Annotated[Principal, requires("prices:read")],
        cursor: Cursor = None, limit: Limit = 100,
    ) -> Page[DemandWindow]:  # fmt: skip
        after = _cursor(cursor)
        async with database.reading() as db:
            items = [DemandWindow(**row) for row in await demand_store.windows(db, sku, after, limit)]
        full = len(items) == limit
        return Page(items=items, next=paging.encode(items[-1].window_start, items[-1].sku) if full else None)

    @router.get("/demand/{sku}", summary="What is asked for now, and what is usual")
    async def get_demand(
        sku: Sku, _: Annotated[Principal, requires("prices:read")],
        at: Annotated[Moment | None, Query(description="business time; now where absent")] = None,
        windows: Annotated[int, Query(ge=1, le=500, description="how many make up the usual")] = 12,
    ) -> DemandNow:  # fmt: skip
        async with database.reading() as db:
            seconds = await demand_store.window_seconds(db, sku, at or datetime.now(UTC))
            if seconds is None:
                raise Problem(404, "Not found", f"nobody has asked for {sku}")
            span = _span(at or datetime.now(UTC), seconds, windows)
            rows = await demand_store.between(db, sku, span.start, span.end)
        return summary(sku, rows, span)

    return router


@dataclass(frozen=True)
class Span:
    """The window in which ``now`` lies, the one before it, and ``windows`` more before that."""

    now: datetime
    current: datetime
    length: timedelta
    windows: int

    @property
    def previous(self) -> datetime:
        return self.current - self.length

    @property
    def start(self) -> datetime:
        return self.previous - self.windows * self.length

    @property
    def end(self) -> datetime:
        return self.current + self.length


def _span(at: datetime, seconds: int, windows: int) -> Span:
    now = at.astimezone(UTC)
    current = datetime.fromtimestamp(now.timestamp() // seconds * seconds, UTC)
    return Span(now, current, timedelta(seconds=seconds), windows)


def summary(sku: str, rows: Sequence[Row], span: Span) -> DemandNow:
    """From the rows of the span; windows in which nothing was asked for have none."""
    by_start = {row["window_start"]: DemandWindow(**row) for row in rows}

    def window(start: datetime) -> DemandWindow:
        nothing = DemandWindow(
            sku=sku, window_start=start, window_end=start + span.length, units=0, orders=0, measured_at=None
        )
        return by_start.get(start, nothing)

    recent, before = window(span.current), window(span.previous)
    rate = (recent.units + before.units) / ((span.now - span.previous) / HOUR)
    usual = sum(one.units for one in by_start.values() if one.window_start < span.previous)
    usual_rate = usual / (span.windows * span.length / HOUR)
    return DemandNow(
        sku=sku, current=recent, previous=before, units_per_hour=round(rate, 2),
        usual_units_per_hour=round(usual_rate, 2), trend=round(rate / usual_rate, 2) if usual else None,
    )  # fmt: skip


def _cursor(cursor: str | None) -> tuple[datetime, str] | None:
    position = paging.decode(cursor, 2)
    if position is None:
        return None
    try:
        return datetime.fromisoformat(str(position[0])).astimezone(UTC), str(position[1])
    except (ValueError, OverflowError) as error:
        raise paging.not_a_cursor() from error
