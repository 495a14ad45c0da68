"""Cursor pagination: stable under inserts, and as fast on the last page as on the first."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar

import orjson
from fastapi import Query
from pydantic import BaseModel

from shared.problems import Problem

T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=500, description="entries per page")]
Cursor = Annotated[str | None, Query(description="`next` of the page before")]


class Page(BaseModel, Generic[T]):
    """``next`` is the cursor of the following page; null on the last one."""

    items: list[T]
    next: str | None = None


def encode(*position: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(position, default=str)).decode().rstrip("=")


def decode(cursor: str | None, parts: int) -> Sequence[Any] | None:
    """The position in a cursor, as ``parts`` JSON values; raises 422 when it is none of ours."""
    if cursor is None:
        return None
    try:
        position = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        position = None
    if not isinstance(position, list) or len(position) != parts:  # pyright: ignore[reportUnknownArgumentType]
        raise not_a_cursor()
    if any(isinstance(part, str) and "\0" in part for part in position):  # pyright: ignore[reportUnknownVariableType]
        raise not_a_cursor()
    return position  # pyright: ignore[reportUnknownVariableType]


def not_a_cursor() -> Problem:
    """The refusal of a cursor that cannot be ours; for services that look at the types of its parts."""
    return Problem(
        422, "Invalid input", "the cursor is none that was given out", code="invalid",
        errors=[{"field": "cursor", "message": "not a cursor"}],
    )  # fmt: skip
