"""The brake: twenty of the last thousand may be set aside, and once it is on only a restart releases it."""

from __future__ import annotations

import pytest

from shared.brake import LIMIT, WINDOW, Brake, BrakedError


def held(brake: Brake, more: int = 1) -> bool:
    try:
        brake.check(more)
    except BrakedError:
        return True
    return False


@pytest.mark.parametrize(("bad", "on"), [(LIMIT - 1, False), (LIMIT, True)])
def test_twenty_of_the_last_thousand_may_be_set_aside_and_not_one_more(bad: int, on: bool):
    brake = Brake("test")
    brake.count(good=5 * WINDOW, bad=0)
    brake.count(good=0, bad=1)
    brake.count(good=WINDOW - bad, bad=bad - 1)  # the window is full, and its oldest is the first bad one
    assert (held(brake), brake.on) == (on, on)


def test_a_dead_letter_that_has_left_the_last_thousand_counts_no_more():
    brake = Brake("test")
    brake.count(good=0, bad=LIMIT)
    brake.count(good=WINDOW - LIMIT + 1, bad=0)
    assert not held(brake)


def test_a_batch_with_too_many_is_refused_without_putting_the_brake_on():
    brake = Brake("test")
    assert held(brake, LIMIT + 1)
    assert (brake.on, held(brake)) == (False, False)


def test_once_on_the_brake_stays_on_whatever_good_messages_follow():
    brake = Brake("test")
    brake.count(good=0, bad=LIMIT)
    assert held(brake)
    brake.count(good=2 * WINDOW, bad=0)
    assert held(brake)
    assert held(brake, 2)
    assert brake.on
