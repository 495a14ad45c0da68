"""What may change in an event and what may not, planted one by one."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import pytest

from shared.contracts import schemas
from shared.contracts.compatibility import breaches
from shared.events.order import OrderPlaced
from shared.messages import Event, Topic
from shared.topics import ORDERS

Json = dict[str, Any]
PLACED = "isthmus.order.OrderPlaced.v1"


class Painted(Event):
    """A lamp got its colour."""

    order_id: UUID
    colour: Literal["red", "blue"]
    price: Decimal
    note: str | None = None


def of(model: type[Event]) -> Json:
    topic: Topic[Any] = Topic("isthmus.order.order.v1", owner="order", key="order_id", union=model, about="")
    return {"Painted": schemas.of_writer(topic, model)}


OLD: Json = {PLACED: schemas.of_writer(ORDERS, OrderPlaced), **of(Painted)}


def line(schema: Json) -> Json:
    return schema["$defs"]["OrderLine"]


INCOMPATIBLE: dict[str, tuple[Callable[[Json], object], str]] = {
    "removed": (lambda s: s["properties"].pop("coupon"), "coupon: removed or renamed; old readers"),
    "removed, and it was required": (
        lambda s: (s["properties"].pop("channel"), s["required"].remove("channel")),
        "channel: removed or renamed; old readers",
    ),
    "renamed": (
        lambda s: s["properties"].update(voucher=s["properties"].pop("coupon")),
        "coupon: removed or renamed; old readers",
    ),
    "another type": (
        lambda s: s["properties"]["points"].update(type="string"),
        "points: type was 'integer' and is 'string'",
    ),
    "text for a decimal": (
        lambda s: s["properties"]["expected_total"].pop("format"),
        "expected_total: format was 'decimal' and is absent",
    ),
    "optional becomes required": (
        lambda s: s["required"].append("coupon"),
        "coupon: was optional and is required; new readers",
    ),
    "required becomes optional": (
        lambda s: s["required"].remove("channel"),
        "channel: was required and is optional; old readers",
    ),
    "new and required": (
        lambda s: (s["properties"].update(mood={"type": "string"}), s["required"].append("mood")),
        "mood: new and required; new readers",
    ),
    "another default": (
        lambda s: s["properties"]["prepaid"].update(default=True),
        "prepaid: default was False and is True",
    ),
    "one became many": (
        lambda s: s["properties"].update(destination={"type": "array", "items": {"$ref": "#/$defs/Destination"}}),
        "destination: type was 'object' and is 'array'",
    ),
    "a limit": (lambda s: s["properties"]["channel"].update(maxLength=9), "channel: maxLength was absent and is 9"),
    "within a part": (
        lambda s: line(s)["properties"].pop("unit_price"),
        "lines[].unit_price: removed or renamed; old readers",
    ),
    "required within a part": (
        lambda s: line(s)["required"].append("unit_price"),
        "lines[].unit_price: was optional and is required; new readers",
    ),
    "another topic": (lambda s: s.update({"x-topic": "elsewhere"}), "the event: x-topic was 'isthmus.order.order.v1'"),
    "another key": (lambda s: s.update({"x-key": "customer_id"}), "the event: x-key was 'order_id'"),
}

COMPATIBLE: dict[str, Callable[[Json], object]] = {
    "a new optional field": lambda s: s["properties"].update(mood={"type": "string"}),
    "a new optional field within a part": lambda s: line(s)["properties"].update(gift={"type": "boolean"}),
    "other words": lambda s: (s.update(description="better said"), s["properties"]["coupon"].update(title="Voucher")),
    "a part's class got another name": lambda s: (
        s["$defs"].update(AskedLine=s["$defs"].pop("OrderLine")),
        s["properties"]["lines"]["items"].update({"$ref": "#/$defs/AskedLine"}),
    ),
    "another order of fields": lambda s: s.update(properties=dict(reversed(s["properties"].items()))),
}


@pytest.mark.parametrize("change", INCOMPATIBLE)
def test_what_one_side_could_not_read_is_refused_and_named(change: str) -> None:
    mutate, said = INCOMPATIBLE[change]
    new = deepcopy(OLD)
    mutate(new[PLACED])
    assert any(breach.startswith(f"{PLACED}: {said}") for breach in breaches(OLD, new)), breaches(OLD, new)


@pytest.mark.parametrize("change", COMPATIBLE)
def test_additions_and_words_are_fine(change: str) -> None:
    new = deepcopy(OLD)
    COMPATIBLE[change](new[PLACED])
    assert breaches(OLD, new) == []


def test_nothing_changed() -> None:
    assert breaches(OLD, deepcopy(OLD)) == []


def test_a_new_event_is_fine_and_a_lost_one_is_not() -> None:
    assert breaches(of(Painted), OLD) == []
    assert breaches(OLD, of(Painted)) == [f"{PLACED}: the event is gone, but stays in the topic for ever"]


def test_an_enum_that_loses_a_value_breaks_new_readers_and_one_that_gains_breaks_old_ones() -> None:
    class Fewer(Painted):
        colour: Literal["red", "green"]  # pyright: ignore[reportIncompatibleVariableOverride]

    lost, gained = sorted(breaches(of(Painted), of(Fewer)), reverse=True)
    assert lost.startswith("Painted: colour: enum lost ['blue']; new readers")
    assert gained.startswith("Painted: colour: enum gained ['green']; old readers")


def test_the_same_change_is_seen_in_the_model() -> None:
    class Changed(Painted):
        price: float  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
        note: str  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
        size: int | None = None

    assert breaches(of(Painted), of(Changed)) == [
        "Painted: note: was optional and is required; new readers could not read old events",
        "Painted: price: format was 'decimal' and is absent",
        "Painted: price: type was 'string' and is 'number'",
    ]
