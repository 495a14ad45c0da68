"""What every request keeps to: bodies without unknown fields, and nothing that Postgres could not store."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, field_validator

EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


def _in_range(value: datetime) -> datetime:
    if not EARLIEST <= value <= LATEST:
        raise ValueError(f"a time from {EARLIEST:%Y} to {LATEST:%Y} is expected")
    return value


Moment = Annotated[AwareDatetime, AfterValidator(_in_range)]  # of a query: what can be stored, in whatever zone


class Body(BaseModel):
    """The base of request bodies: what cannot be stored is refused at the door, by field, and not by the database."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        if isinstance(value, str) and "\0" in value:
            raise ValueError("a NUL character cannot be stored")
        if isinstance(value, datetime) and value.tzinfo is not None:
            _in_range(value)
        if isinstance(value, Decimal) and not (value.is_finite() and -20 <= int(value.as_tuple().exponent) <= 20):
            raise ValueError("a number without so large an exponent is expected")
        return value
