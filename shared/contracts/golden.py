"""Golden examples: each event as a message, with every optional field and with none.

A new field needs a value in ``SAMPLES``; where an event wants another one, in ``SPECIAL``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import UnionType
from typing import Any, Union, get_args, get_origin
from uuid import UUID, uuid5

from shared import envelope
from shared.messages import Event, Topic, Value, event_id
from shared.tracing import Trace

Json = dict[str, Any]

NAMESPACE = UUID("0b2f9f0e-5d7e-5a51-9c38-6f1f6a1f7a10")
TRACE = Trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
RECORDED_AT = datetime.fromisoformat("2026-03-01T12:00:01+00:00")


def _id(of: str) -> str:
    return str(uuid5(NAMESPACE, of))


# One order throughout: one RED-LAMP and two BLUE-CUPs, with ten per cent off and 100 points redeemed.
SAMPLES: Mapping[str, Any] = {
    "occurred_at": "2026-03-01T12:00:00Z", "valid_from": "2026-03-01T00:00:00Z", "retired_at": "2026-03-02T00:00:00Z",
    **{f"{of}_id": _id(of) for of in ("order", "customer", "recipient", "payment", "refund", "key", "quote")},
    "channel": "shop", "external_reference": "shop-1001", "currency": "EUR", "coupon": "WELCOME10", "points": 100,
    "expected_total": "47.96", "amount": "47.96", "total": "47.96", "discount": "5.44", "tax": "7.81",
    "points_value": "1.00", "points_held": 100, "prepaid": True, "late": True, "country": "DE", "postal_area": "10",
    "provider": "sandbox", "redirect_url": "https://pay.example/3ds/1001", "waiting_for": ["payment"],
    "public_key": "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", "sealed": "c2VhbGVkOiBvbmx5IGN1c3RvbWVyIG9wZW5zIGl0",
    "new_customer": True, "tier": "base", "guest": True, "purpose": "marketing_email", "granted": True,
    "name": "Red lamp", "category": "lamps", "supplier": "Glow & Sons", "unit": "box", "weight": 850,
    "tax_class": "reduced", "active": False, "unit_cost": "18.20", "unit_price": "39.90", "price_list": "retail",
    "sku": "RED-LAMP", "warehouse": "MAIN", "available": 3, "known": False, "reason": "requested", "detail": "",
    "trigger": "order_refused", "template": "order_refused", "fee": "0.87", "parcel": 1, "parcels": [1],
    "carrier": "post", "tracking": "JJD0003933", "promised_at": "2026-03-03T17:00:00Z", "price": "4.20",
    "point_value": "0.01", "earned": 47, "redeemed": 100, "pinned": True, "orders": 2, "units": 5, "line": 1,
    "quantity": 2, "window_start": "2026-03-01T12:00:00Z", "window_end": "2026-03-01T12:05:00Z",
    "generation": 2, "state": "confirmed", "keeps_coupon": True,
}  # fmt: skip
# What differs from line to line.
ROWS: tuple[Mapping[str, Any], ...] = (
    {"line": 1, "sku": "RED-LAMP", "quantity": 1, "unit_price": "39.90", "discount": "3.99", "total": "35.91",
     "tax": "5.73", "price_list": "retail", "coupon_discount": "3.99", "tax_percent": "19", "warehouse": "MAIN",
     "wanted": 1, "available": 0, "on_hand": 4, "reserved": 1},
    {"line": 2, "sku": "BLUE-CUP", "quantity": 2, "unit_price": "7.25", "discount": "1.45", "total": "13.05",
     "tax": "2.08", "price_list": "retail", "coupon_discount": "1.45", "tax_percent": "19", "warehouse": "NORTH",
     "wanted": 2, "available": 1, "on_hand": 2, "reserved": 2},
)  # fmt: skip
SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "OrderRejected": {"reason": "stock", "detail": "RED-LAMP"},
    "OrderLinesCancelled": {
        "lines": [{"line": 2, "sku": "BLUE-CUP", "quantity": 1, "amount": "6.53"}], "amount": "6.53",
        "allocations": [{"sku": "BLUE-CUP", "warehouse": "NORTH", "quantity": 1}], "tax": "1.04", "discount": "0.73",
        "points_value": "0.14", "points": 14,
    },
    "OrderCancelled": {"reason": "merchant"},
    "PaymentDeclined": {"reason": "card_declined"},
    "RefundRequested": {"amount": "6.53", "reason": "lines_cancelled"},
    "PaymentRefunded": {"amount": "6.53"},
    "BuyerRefused": {"reason": "points", "detail": "100 wanted, 40 there"},
    "PriceRefused": {"reason": "coupon_not_valid", "detail": "WELCOME10 ended on 2026-02-28"},
    "TierChanged": {"tier": "silver"},
    "CustomerRegistered": {"tier": "silver"},
    "CareTriggered": {"reason": "stock"},
    "CareSent": {"channel": "email"},
    "CareFailed": {"reason": "opted_out"},
    "ParcelRefused": {"reason": "Address not served"},
}  # fmt: skip


def examples(topic: Topic[Any], event: type[Event]) -> list[Json]:
    """Messages of this event: with every optional field and, where it has such, with none."""
    full, bare = (event.model_validate(_fields(event, whole=whole)) for whole in (True, False))
    messages = [_message(topic, full, "every field", causation=True)]
    if bare.model_fields_set != full.model_fields_set:
        messages.append(_message(topic, bare, "required fields only", causation=False))
    return messages


def _message(topic: Topic[Any], event: Event, name: str, *, causation: bool) -> Json:
    type_, key = topic.type_of(type(event)), topic.key_of(event)
    cause = UUID(_id(f"cause of {type_}, {name}"))
    headers = envelope.headers_for(
        id=event_id(cause, type_, key, 0), source=topic.source, type=type_, recorded_at=RECORDED_AT, key=key,
        sequence=list(topic.events).index(type_) + 1, correlation_id=SAMPLES["order_id"],
        causation_id=str(cause) if causation else None, traceparent=str(TRACE),
    )  # fmt: skip
    return {
        "name": name,
        "key": key,
        "headers": {header: value.decode() for header, value in headers},
        "body": event.model_dump(mode="json", exclude_unset=True),
    }


def _fields(model: type[Value], row: Mapping[str, Any] | None = None, *, whole: bool) -> Json:
    """A value for each field of ``model`` (or each required one), taken from ``row`` first."""
    known = {**SAMPLES, **(row or {}), **SPECIAL.get(model.__name__, {})}
    values: Json = {}
    for name, info in model.model_fields.items():
        part, many = _part(info.annotation)
        if not (whole or info.is_required()):
            continue
        if name in known:
            values[name] = known[name]
        elif part is None:
            raise ValueError(f"{model.__name__}.{name} has no example: give it a value in SAMPLES of {__name__}")
        else:
            values[name] = [_fields(part, one, whole=whole) for one in ROWS] if many else _fields(part, whole=whole)
    return values


def _part(annotation: Any) -> tuple[type[Value] | None, bool]:
    """The model that a field consists of, and whether there are many of it."""
    if isinstance(annotation, type) and issubclass(annotation, Value):
        return annotation, False
    if get_origin(annotation) in (tuple, list):
        return _part(get_args(annotation)[0])[0], True
    if get_origin(annotation) in (Union, UnionType):
        return next((found for one in get_args(annotation) if (found := _part(one))[0]), (None, False))
    return None, False
