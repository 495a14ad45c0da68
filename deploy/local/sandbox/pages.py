"""A log read page by page, and how its times are written."""

import sqlite3
from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel

Item = TypeVar("Item", bound=BaseModel)
Cursor = Annotated[int, Query(ge=0, lt=2**63, description="next_cursor of the page before")]
Limit = Annotated[int, Query(ge=1, le=1000)]


class Page(BaseModel, Generic[Item]):
    """A stretch of the log, oldest first. `next_cursor` is null when nothing follows yet."""

    data: list[Item]
    next_cursor: str | None


def next_cursor(rows: list[sqlite3.Row], limit: int) -> str | None:
    """One row more than the limit was read, to know whether anything follows."""
    return str(rows[limit - 1]["seq"]) if len(rows) > limit else None


def text_of(seconds: float) -> str:
    """Write seconds since 1970 as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
