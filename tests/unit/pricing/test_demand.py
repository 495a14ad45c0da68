"""Demand is counted in windows of business time, each line once, and what is kept of it has a bound."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.pricing.demand import process
from services.pricing.demand.decisions import (
    KEEP_SECONDS,
    KEEP_WINDOWS,
    SAY_AGAIN_SECONDS,
    Changes,
    Count,
    Position,
    Recency,
    Window,
    count,
    from_json,
    lines_of,
    measured,
    to_json,
    to_say_again,
    window_of,
)
from services.pricing.demand.settings import DemandSettings
from shared.events.order import Destination, OrderLine, OrderPlaced
from shared.events.pricing import LineDemanded
from shared.health import Health

NOON = datetime(2010, 12, 1, 12, tzinfo=UTC)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
ORDER = UUID(int=1)


def line(sku: str = "RED-LAMP", quantity: int = 1, at: datetime = NOON) -> LineDemanded:
    return LineDemanded(occurred_at=at, sku=sku, order_id=ORDER, line=1, quantity=quantity)


def counted(*arrived: tuple[Position, int], start: Count | None = None) -> Count:
    known = start or Count()
    for at, quantity in arrived:
        known = count(known, line(quantity=quantity), at, partition=7, now=1.0) or known
    return known


def of_order(*offsets: int, partition: int = 0) -> Iterable[tuple[Position, int]]:
    return [(Position(partition, offset, 0), 2) for offset in offsets]


# -- windows --


def test_a_window_begins_with_its_first_instant_and_ends_before_the_next():
    first, last = NOON, NOON + timedelta(seconds=299, microseconds=999_999)
    start = int(NOON.timestamp())
    assert window_of(line(at=first), 300) == window_of(line(at=last), 300) == Window(start, start + 300, "RED-LAMP")
    assert window_of(line(at=NOON + timedelta(seconds=300)), 300).start == start + 300


def test_a_window_goes_by_business_time_in_whatever_zone_it_is_told():
    elsewhere = NOON.astimezone(tz=datetime.fromisoformat("2010-01-01T00:00:00+05:30").tzinfo)
    assert window_of(line(at=elsewhere), 86_400) == window_of(line(at=NOON), 86_400)
    assert window_of(line(at=datetime(1969, 12, 31, 23, 59, tzinfo=UTC)), 300) == Window(-300, 0, "RED-LAMP")


def test_an_order_asks_for_every_line_whether_or_not_it_gets_it():
    order = OrderPlaced(
        occurred_at=NOON, order_id=ORDER, channel="web", external_reference="1", currency="EUR",
        destination=Destination(country="DE"),
        lines=tuple(OrderLine(line=n, sku=sku, quantity=n) for n, sku in ((1, "RED-LAMP"), (2, "BLUE-CUP"))),
    )  # fmt: skip
    assert [(one.sku, one.line, one.quantity, one.order_id, one.occurred_at) for one in lines_of(order)] == [
        ("RED-LAMP", 1, 1, ORDER, NOON),
        ("BLUE-CUP", 2, 2, ORDER, NOON),
    ]


# -- counting --


def test_units_and_orders_add_up():
    known = counted(*of_order(10, 11, partition=0), *of_order(3, partition=1))
    assert (known.units, known.orders, known.partition) == (6, 3, 7)


def test_a_line_that_comes_again_is_not_counted_again():
    once = counted(*of_order(10, 11))
    assert counted(*of_order(10, 11), start=once) == once
    assert count(once, line(), Position(0, 11, 0), 7, 9.0) is None
    assert counted(*of_order(10, 11, 10, 11, 12)) == counted(*of_order(10, 11, 12))


def test_lines_of_other_partitions_are_no_repeats():
    assert counted(*of_order(10, partition=0), *of_order(10, partition=1)).units == 4


def test_several_lines_of_an_order_are_one_order():
    known = counted((Position(0, 10, 0), 1), (Position(0, 10, 3), 5), (Position(0, 11, 0), 1))
    assert (known.units, known.orders) == (7, 2)


def test_what_is_kept_comes_back_as_it_was():
    known = counted(*of_order(10), *of_order(4, partition=11))
    assert from_json(json.loads(json.dumps(to_json(known)))) == known


def test_a_place_comes_back_from_its_header():
    assert Position.parse(str(Position(3, 1041, 2))) == Position(3, 1041, 2)
    with pytest.raises(ValueError, match="not enough values"):
        Position.parse("3/1041")


def test_a_measurement_says_when_its_window_is():
    event = measured(Window(0, 300, "RED-LAMP"), Count(units=5, orders=2), generation=3)
    assert (event.window_start, event.window_end - event.window_start) == (
        datetime.fromtimestamp(0, UTC), timedelta(seconds=300),
    )  # fmt: skip
    assert (event.sku, event.units, event.orders, event.generation) == ("RED-LAMP", 5, 2, 3)


# -- publishing --


def test_a_hot_window_is_published_once_for_many_lines():
    changes, lamp, cup = Changes(), Window(0, 300, "RED-LAMP"), Window(0, 300, "BLUE-CUP")
    for _ in range(1000):
        changes.note([lamp])
    changes.note([cup])
    assert changes.take() == [lamp, cup]
    assert changes.take() == []


def test_after_a_crash_the_last_minute_is_said_again():
    old, new, newest = (Window(start, start + 300, "RED-LAMP") for start in (0, 300, 600))
    counts = {
        old: Count(touched_at=1000 - SAY_AGAIN_SECONDS - 1),
        new: Count(touched_at=1000 - SAY_AGAIN_SECONDS),
        newest: Count(touched_at=1000),
    }
    assert to_say_again(counts) == [new, newest]
    assert to_say_again({}) == []


# -- forgetting --


def test_a_window_is_forgotten_some_time_after_it_has_ended():
    recency, old, new = Recency(), Window(0, 300, "RED-LAMP"), Window(300, 600, "RED-LAMP")
    assert recency.touch(0, old, NOW) == []
    assert recency.touch(0, new, NOW + 1) == []
    assert recency.touch(0, new, NOW + 1 + KEEP_SECONDS) == []
    assert recency.touch(0, new, NOW + 2 + KEEP_SECONDS) == [old]
    assert len(recency) == 1


def test_a_window_that_goes_on_is_kept():
    recency, old, new = Recency(), Window(0, 300, "RED-LAMP"), Window(300, 600, "RED-LAMP")
    recency.touch(0, new, NOW)
    for now in (NOW, NOW + KEEP_SECONDS):
        recency.touch(0, old, now)
    assert recency.touch(0, new, NOW + KEEP_SECONDS + 1) == []


def test_what_is_kept_has_a_bound_however_many_windows_there_are():
    recency = Recency()
    number = KEEP_WINDOWS + 50
    gone = [old for n in range(number) for old in recency.touch(0, Window(n, n + 1, "RED-LAMP"), NOW)]
    assert gone == [Window(n, n + 1, "RED-LAMP") for n in range(49)]
    assert len(recency) == KEEP_WINDOWS + 1  # and the one at hand


def test_more_skus_at_once_than_are_kept_are_all_counted_right():
    table: dict[Window, Count] = {}
    recency, skus = Recency(), KEEP_WINDOWS + 1000
    for offset in range(3 * skus):
        one = line(f"SKU-{offset % skus}")
        window, now = window_of(one, 300), NOW + offset / 1000
        table[window] = count(table.get(window), one, Position(0, offset, 0), 3, now) or Count()
        for old in recency.touch(3, window, now):
            del table[old]
    assert [known.units for known in table.values()] == [3] * skus
    recency.touch(3, window_of(line(at=NOON + timedelta(minutes=5)), 300), NOW)
    for _ in range(skus):  # they have ended: now room is made
        recency.touch(3, window_of(line(at=NOON + timedelta(minutes=5)), 300), NOW)
    assert len(recency) == KEEP_WINDOWS + 1


def test_a_window_of_a_day_is_not_forgotten_in_a_quiet_hour():
    recency, day = Recency(), Window(0, 86_400, "RED-LAMP")
    recency.touch(0, day, NOW)
    assert recency.touch(0, Window(0, 86_400, "BLUE-CUP"), NOW + 2 * KEEP_SECONDS) == []


def test_orders_dated_in_the_future_end_no_window_and_take_no_room():
    recency, at_hand = Recency(), Window(int(NOW), int(NOW) + 300, "RED-LAMP")
    recency.touch(0, at_hand, NOW)
    later = [Window(int(NOW) + 300 * n, int(NOW) + 300 * n + 300, "RED-LAMP") for n in range(1, KEEP_WINDOWS + 9)]
    gone = [old for one in later for old in recency.touch(0, one, NOW)]
    assert gone == later[:8]
    recency.touch(0, later[8], NOW + 300 * 9)  # its time has come
    assert len(recency) == KEEP_WINDOWS + 1


def test_a_partition_forgets_its_own_windows_only():
    recency = Recency()
    for start in (0, 300):
        recency.touch(0, Window(start, start + 300, "RED-LAMP"), NOW)
    assert recency.touch(1, Window(0, 300, "BLUE-CUP"), NOW + 2 * KEEP_SECONDS) == []
    assert len(recency) == 3


def test_after_a_crash_what_was_kept_is_forgotten_in_the_same_order():
    counts = {Window(n, n + 1, "RED-LAMP"): Count(touched_at=NOW - n, partition=3) for n in range(4)}
    recency = Recency(counts)
    assert recency.touch(3, Window(3, 4, "BLUE-CUP"), NOW + KEEP_SECONDS - 0.5) == [
        Window(2, 3, "RED-LAMP"), Window(1, 2, "RED-LAMP"),
    ]  # fmt: skip
    assert len(recency) == 3  # the one at hand stays, though touched before them


# -- life --


async def test_a_process_that_waits_for_its_table_for_ever_is_not_alive(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "PUBLISH_SECONDS", 0.01)
    health = Health()
    settings = DemandSettings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")  # pyright: ignore[reportCallIssue] - its alias
    demand = process.Demand(settings, health)
    assert demand.engine.unready() == "its table is being read back"
    assert not any(demand.engine.lag().values())
    health.beat("demand", within=0.05)
    publishing = asyncio.create_task(demand.publish())
    await asyncio.sleep(0.15)
    assert not publishing.done()
    publishing.cancel()
    assert "demand" in health.stuck()
