"""A message comes out of a record as it went in; whatever else is in a record is answered, never raised."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.envelope import Poison, Unknown, read
from shared.messages import Message, event_id
from shared.topics import ALL_TOPICS, HOLDS, ORDERS
from tests.support.kernel import FakeRecord, record
from tests.support.orders import order_id, placed


def test_a_message_comes_out_as_it_went_in():
    id_, at = uuid4(), datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    message = read(record(ORDERS, placed(), 7, id=id_, sequence=3, partition=2, at=at), ORDERS)
    assert isinstance(message, Message)
    assert (message.event, message.id, message.sequence, message.recorded_at) == (placed(), id_, 3, at)
    assert (message.topic, message.partition, message.offset) == (ORDERS.name, 2, 7)
    assert (message.key, message.correlation_id) == (str(order_id()), "test")
    assert message.trace.trace_id == "0af7651916cd43dd8448eb211c80319c"


def test_fields_of_a_newer_release_are_passed_over():
    one = record(ORDERS, placed(), 0)
    assert one.value is not None
    one.value = one.value.replace(b'{"occurred_at"', b'{"gift_wrap":true,"occurred_at"')
    message = read(one, ORDERS)
    assert isinstance(message, Message)
    assert message.event == placed()


def test_a_type_of_a_newer_release_is_unknown_and_a_strangers_is_poison():
    assert read(record(ORDERS, placed(), 0, headers={"ce_type": b"isthmus.order.OrderPraised.v1"}), ORDERS) == Unknown(
        "isthmus.order.OrderPraised.v1"
    )
    assert isinstance(
        read(record(ORDERS, placed(), 0, headers={"ce_type": b"isthmus.pricing.OrderPriced.v1"}), ORDERS), Poison
    )
    assert isinstance(
        read(record(ORDERS, placed(), 0, headers={"ce_source": b"/elsewhere", "ce_type": b"X"}), ORDERS), Poison
    )


@pytest.mark.parametrize(
    "header", ["ce_id", "ce_type", "ce_source", "ce_time", "ce_sequence", "ce_correlationid"]
)  # fmt: skip
@pytest.mark.parametrize("content", [None, b"", b"\xff", b"nonsense"])
def test_a_header_missing_or_unreadable_is_never_an_exception(header: str, content: bytes | None):
    answer = read(record(ORDERS, placed(), 0, headers={header: content}), ORDERS)
    if header not in ("ce_correlationid", "ce_source") or content == b"\xff" or content is None:
        assert isinstance(answer, Poison) or (header == "ce_source" and isinstance(answer, Message))


@pytest.mark.parametrize(
    "body", [None, b"", b"{", b"[]", b"null", b"\xff", b'{"order_id": 1}', b"1e999", b"[" * 100_000]
)
def test_a_body_that_is_no_event_is_poison_and_its_content_stays_out_of_the_reason(body: bytes | None):
    one = record(ORDERS, placed(), 0)
    one.value = body
    assert isinstance(read(one, ORDERS), Poison)


def test_an_invalid_event_is_poison_whose_reason_names_the_field_but_not_the_input():
    one = record(ORDERS, placed(), 0)
    assert one.value is not None
    one.value = one.value.replace(b'"quantity":1', b'"quantity":"Anna Ash"')
    answer = read(one, ORDERS)
    assert isinstance(answer, Poison)
    assert "quantity" in answer.reason
    assert "Ash" not in answer.reason


@given(
    st.lists(st.tuples(st.sampled_from(["ce_id", "ce_type", "ce_time", "x"]), st.none() | st.binary()), max_size=6),
    st.none() | st.binary(), st.none() | st.binary(),
)  # fmt: skip
def test_no_record_whatever_makes_reading_raise(headers: list[tuple[str, Any]], key: bytes | None, body: bytes | None):
    read(FakeRecord(ORDERS.name, 0, key, body, headers), ORDERS)
    valid = record(ORDERS, placed(), 0)
    read(FakeRecord(ORDERS.name, 0, key, body, [*valid.headers, *headers]), ORDERS)


def test_the_same_cause_says_the_same_thing_and_another_another():
    cause = UUID(int=5)
    one = event_id(cause, "isthmus.order.OrderPlaced.v1", "key", 0)
    assert one == event_id(cause, "isthmus.order.OrderPlaced.v1", "key", 0)
    others = {
        event_id(cause, "isthmus.order.OrderPlaced.v1", "key", 1),
        event_id(cause, "isthmus.order.OrderPlaced.v1", "other", 0),
        event_id(UUID(int=6), "isthmus.order.OrderPlaced.v1", "key", 0),
    }
    assert len(others | {one}) == 4


def test_no_two_topics_share_a_name_and_joined_ones_are_cut_alike():
    assert len({topic.name for topic in ALL_TOPICS}) == len(ALL_TOPICS)
    assert ORDERS.partitions == HOLDS.partitions
