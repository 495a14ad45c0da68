"""The timeline of an order: every service's events once, in time, each with the name of what brought it about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from shared.cli.orders import rows
from shared.cli.timeline import Happened, Named, causes, merged, of_kafka, of_order, reasons
from shared.envelope import headers_for
from shared.messages import Event, Topic, event_id
from shared.topics import CARE, HOLDS, IDENTIFICATIONS, INTAKE, ORDERS
from tests.support.kernel import FakeRecord

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ORDER = UUID(int=7)
REQUEST, PROVIDER = ORDER, uuid5(ORDER, "captured")


def at(milliseconds: int) -> datetime:
    return START + timedelta(milliseconds=milliseconds)


def id_of(topic: Topic[Any], type_: str, cause: UUID) -> UUID:
    return event_id(cause, f"isthmus.{topic.owner}.{type_}.v1", str(ORDER), 0)


PLACED = id_of(ORDERS, "OrderPlaced", REQUEST)
SEALED = id_of(INTAKE, "BuyerSealed", REQUEST)
HELD = id_of(HOLDS, "StockHeld", PLACED)
IDENTIFIED = id_of(IDENTIFICATIONS, "BuyerIdentified", SEALED)
CONFIRMED = id_of(ORDERS, "OrderConfirmed", PROVIDER)
MAILED = id_of(CARE, "CareTriggered", CONFIRMED)


def step(sequence: int | None, type_: str, cause: UUID, milliseconds: int) -> dict[str, Any]:
    """As the order service answers it."""
    return {"sequence": sequence, "type": type_, "cause": str(cause), "recorded_at": at(milliseconds).isoformat()}


STEPS = (
    step(1, "OrderPlaced", REQUEST, 10),
    step(2, "PaymentRequested", IDENTIFIED, 60),
    step(3, "PaymentCaptured", PROVIDER, 90),
    step(4, "OrderConfirmed", PROVIDER, 91),
)


def record(topic: Topic[Any], type_: str, cause: UUID, milliseconds: int, *, sequence: int = 1) -> FakeRecord:
    """As it lies in Kafka."""
    headers = headers_for(
        id=id_of(topic, type_, cause), source=topic.source, type=f"isthmus.{topic.owner}.{type_}.v1",
        recorded_at=at(milliseconds), key=str(ORDER), sequence=sequence, correlation_id=str(ORDER),
        causation_id=str(cause), traceparent="",
    )  # fmt: skip
    return FakeRecord(topic.name, 0, str(ORDER).encode(), b"{}", headers)


RECORDS = (
    record(ORDERS, "OrderPlaced", REQUEST, 0),
    record(INTAKE, "BuyerSealed", REQUEST, 0),
    record(HOLDS, "StockHeld", PLACED, 30),
    record(IDENTIFICATIONS, "BuyerIdentified", SEALED, 40),
    record(ORDERS, "PaymentCaptured", PROVIDER, 70, sequence=3),
    record(ORDERS, "OrderConfirmed", PROVIDER, 70, sequence=4),
    record(CARE, "CareTriggered", CONFIRMED, 110),
)


def told(events: Sequence[Happened]) -> list[tuple[str, str]]:
    why = reasons(events, causes(ORDER, events))
    return [(one.type, why[one.id]) for one in events]


def test_with_kafka_every_services_events_are_in_the_timeline_and_name_their_cause():
    assert told(merged(of_order(ORDER, STEPS), of_kafka(RECORDS))) == [
        ("OrderPlaced", "no event: request, timer, call (00000000)"),
        ("BuyerSealed", "same as OrderPlaced"),
        ("StockHeld", "OrderPlaced, order"),
        ("BuyerIdentified", "BuyerSealed, order"),
        ("PaymentRequested", "BuyerIdentified, customer"),
        ("PaymentCaptured", f"no event: request, timer, call ({str(PROVIDER)[:8]})"),
        ("OrderConfirmed", "same as PaymentCaptured"),
        ("CareTriggered", "OrderConfirmed, order"),
    ]


def test_the_orders_own_events_keep_the_time_that_the_order_tells():
    own = [one for one in merged(of_order(ORDER, STEPS), of_kafka(RECORDS)) if one.service == "order"]
    assert [one.recorded_at for one in own] == [at(10), at(10), at(60), at(90), at(91)]  # BuyerSealed came with it


def test_without_kafka_the_cause_of_an_own_event_is_named_all_the_same():
    assert told(of_order(ORDER, STEPS))[1] == ("PaymentRequested", "BuyerIdentified, customer")


def test_an_event_that_the_relay_wrote_twice_is_shown_once():
    once, twice = (merged(of_order(ORDER, STEPS), of_kafka(RECORDS * times)) for times in (1, 2))
    assert twice == once


def test_what_the_order_heard_of_another_service_is_shown_once_and_by_that_services_word():
    heard = step(None, "CareTriggered", MAILED, 150)
    alone = merged(of_order(ORDER, [*STEPS, heard]), [])
    assert [(one.service, one.id) for one in alone][-1] == ("notify", MAILED)
    with_kafka = merged(of_order(ORDER, [*STEPS, heard]), of_kafka(RECORDS))
    assert [one.recorded_at for one in with_kafka if one.type == "CareTriggered"] == [at(110)]


def test_two_events_of_one_type_by_one_cause_have_ids_of_their_own():
    refunds = of_order(ORDER, [step(n, "RefundRequested", PROVIDER, n) for n in (1, 2)])
    expected = [event_id(PROVIDER, "isthmus.order.RefundRequested.v1", str(ORDER), n) for n in (0, 1)]
    assert [one.id for one in refunds] == expected


def test_a_record_without_an_envelope_is_left_out():
    strange = FakeRecord(HOLDS.name, 1, str(ORDER).encode(), b"", [("ce_type", b"com.example.Thing")])
    assert of_kafka([strange, FakeRecord(HOLDS.name, 2, None, None)]) == []


def test_programs_get_times_after_the_start_and_since_the_event_before():
    events = merged(of_order(ORDER, STEPS), of_kafka(RECORDS))
    lines = {line["type"]: line for line in rows(events, causes(ORDER, events), START)}
    assert (lines["StockHeld"]["after_ms"], lines["StockHeld"]["since_previous_ms"]) == (30.0, 20.0)
    assert lines["StockHeld"]["cause"] == {"id": PLACED, "type": "OrderPlaced", "service": "order"}
    assert lines["PaymentCaptured"]["cause"] == {"id": PROVIDER, "type": None, "service": None}


def test_every_event_of_every_service_can_be_a_named_cause():
    classes: list[type[Event]] = [event for topic in (HOLDS, IDENTIFICATIONS) for event in topic.events.values()]
    for event in classes:
        owner = "inventory" if event in HOLDS.events.values() else "customer"
        cause = event_id(PLACED, f"isthmus.{owner}.{event.__name__}.v1", str(ORDER), 0)
        events = of_order(ORDER, [*STEPS[:1], step(2, "OrderRejected", cause, 20)])
        assert causes(ORDER, events)[cause] == Named(event.__name__, owner)
