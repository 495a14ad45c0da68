"""Versions against what the log shows: the order of looking makes it certain."""

from __future__ import annotations

from shared.drift import REMEMBERED, Agreement
from tests.support.kernel import FakeRecord

TOPIC = "lamps"


def spoke(key: str, sequence: int) -> FakeRecord:
    return FakeRecord(TOPIC, 0, key.encode(), b"{}", [("ce_sequence", str(sequence).encode())])


def looked(agreement: Agreement, *records: FakeRecord, waiting: set[str] | None = None, **versions: int) -> None:
    """One turn: what came, then the versions."""
    agreement.hear(records)
    agreement.settle()
    agreement.compare(TOPIC, versions, waiting or set())


def test_what_was_said_is_in_the_log():
    agreement = Agreement()
    looked(agreement, spoke("red", 1), spoke("red", 2), red=2)
    looked(agreement, red=2)
    assert agreement.drift == {}


def test_an_event_that_came_after_the_log_was_read_is_not_lost():
    agreement = Agreement()
    looked(agreement, spoke("red", 1), red=2)
    looked(agreement, spoke("red", 2), red=3)
    looked(agreement, spoke("red", 3), red=3)
    assert agreement.drift == {}


def test_an_event_that_does_not_come_until_the_next_look_is_lost():
    agreement = Agreement()
    looked(agreement, spoke("red", 1), red=2)
    assert agreement.drift == {}
    looked(agreement, red=2)
    assert agreement.drift == {(TOPIC, "red"): "log_behind"}
    looked(agreement, red=2)
    assert agreement.drift == {(TOPIC, "red"): "log_behind"}
    looked(agreement, spoke("red", 2), red=2)
    looked(agreement, red=2)
    assert agreement.drift == {}


def test_what_waits_in_the_outbox_is_owed_by_nobody():
    agreement = Agreement()
    for _ in range(3):
        looked(agreement, spoke("red", 1), red=2, waiting={"red"})
    assert agreement.drift == {}


def test_a_log_ahead_of_its_table_is_somebody_elses():
    agreement = Agreement()
    looked(agreement, spoke("red", 3), spoke("blue", 1), red=2, blue=0)
    assert agreement.drift == {(TOPIC, "red"): "log_ahead", (TOPIC, "blue"): "log_ahead"}
    looked(agreement, red=3, blue=1)
    assert agreement.drift == {}


def test_what_is_not_ours_is_passed_over_and_memory_is_bounded():
    agreement = Agreement()
    agreement.hear([FakeRecord(TOPIC, 0, b"red", b""), FakeRecord(TOPIC, 0, None, b"", [("ce_sequence", b"1")])])
    agreement.hear([FakeRecord(TOPIC, 0, b"red", b"", [("ce_sequence", b"one")])])
    assert not agreement.last
    agreement.hear(spoke(str(number), 1) for number in range(REMEMBERED + 5))
    assert len(agreement.last) == REMEMBERED
    assert (TOPIC, "4") not in agreement.last
