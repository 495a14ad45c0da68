"""The command line: where it finds the platform, how it counts what is behind, how it looks."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import SecretStr
from rich.console import Console

from deploy.local.environment import choose_ports
from shared.cli.__main__ import in_place, main
from shared.cli.connection import CliError, CliSettings, Connection, exports
from shared.cli.ledger import when
from shared.cli.orders import lines_table, parcels_table
from shared.cli.output import cells, duration, moment, table
from shared.cli.topics import Lag, lags, topic_rows
from shared.kafka import Group
from shared.topics import HOLDS, ORDERS

NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens


def settings(**known: Any) -> CliSettings:
    """Only these are set, whatever the environment of the test says."""
    unset = dict.fromkeys(CliSettings.model_fields, None)
    return CliSettings.model_construct(**{**unset, **known})


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(milliseconds=0.4), "0 ms"),
        (timedelta(milliseconds=12), "12 ms"),
        (timedelta(milliseconds=999.7), "1.00 s"),
        (timedelta(seconds=1.2345), "1.23 s"),
        (timedelta(seconds=59.999), "60.00 s"),
        (timedelta(seconds=123), "2 min 03 s"),
        (timedelta(hours=3, minutes=5), "3 h 05 min"),
        (timedelta(days=2, hours=4, minutes=59), "2 d 04 h"),
        (-timedelta(milliseconds=5), "-5 ms"),
    ],
)
def test_a_duration_is_told_as_a_person_says_it(span: timedelta, text: str):
    assert duration(span) == text


def test_a_moment_is_told_in_utc():
    assert moment("2026-03-01T13:00:00+01:00") == "2026-03-01 12:00:00"
    assert moment(None) == ""


def test_a_date_is_the_beginning_of_that_day_in_utc():
    assert when("2026-03-01") == datetime(2026, 3, 1, tzinfo=UTC)
    assert when("2026-03-01T12:00:00+02:00").astimezone(UTC).hour == 10
    with pytest.raises(typer.BadParameter):
        when("yesterday")


def test_the_environment_of_a_process_is_read_from_its_exports():
    script = "export ISTHMUS_HTTP_PORT=20001\nexport KEY='it'\"'\"'s = a key'\nnot an export\n"
    assert exports(script) == {"ISTHMUS_HTTP_PORT": "20001", "KEY": "it's = a key"}


ELSEWHERE: dict[str, Any] = {
    "order_url": "https://orders.example/", "kafka": "broker:9092", "token": SecretStr("secret"),
}  # fmt: skip


def test_what_the_environment_says_is_asked():
    connection = Connection(None, settings(**ELSEWHERE))
    assert connection.url("order") == "https://orders.example"
    assert (connection.bootstrap_servers, connection.token) == ("broker:9092", "secret")


@pytest.mark.parametrize("asked", ["order_url", "kafka", "token"])
def test_a_stack_that_is_asked_for_is_asked_whatever_the_environment_says(tmp_path: Path, asked: str):
    connection = Connection(tmp_path / "no-stack", settings(**ELSEWHERE))
    with pytest.raises(CliError, match=r"no local stack in .*no-stack"):
        ask(connection, asked)


def test_a_stack_that_is_asked_for_has_its_own_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ports = choose_ports({}, ())
    (tmp_path / "stack.json").write_text(json.dumps(ports))  # as `make up` leaves it
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "broker.example:9092")
    assert Connection(tmp_path).bootstrap_servers == f"127.0.0.1:{ports['kafka']}"


@pytest.mark.parametrize(
    ("known", "missing"),
    [
        (known, missing)
        for known in [*ELSEWHERE, "notify_url", "client_secret"]
        for missing in ELSEWHERE
        if known != missing
    ],
)
def test_the_environment_s_platform_is_not_mixed_with_the_local_stack(known: str, missing: str):
    value = SecretStr("x") if known == "client_secret" else ELSEWHERE.get(known, NOWHERE)
    connection = Connection(None, settings(**{known: value}))
    variable = {"kafka": "KAFKA_BOOTSTRAP_SERVERS"}.get(missing, f"ISTHMUS_{missing.upper()}")
    set_ = {"kafka": "KAFKA_BOOTSTRAP_SERVERS"}.get(known, f"ISTHMUS_{known.upper()}")
    with pytest.raises(CliError, match=f"{variable} is not set, but {set_} is"):
        ask(connection, missing)


def test_variables_that_say_nothing_name_no_platform():
    assert settings(order_url="", kafka="", token=SecretStr("")).said() is None


def ask(connection: Connection, what: str) -> str:
    if what == "order_url":
        return connection.url("order")
    return connection.token if what == "token" else connection.bootstrap_servers


@pytest.mark.parametrize(
    ("typed", "understood"),
    [
        ("lag --stack here --json", "--stack here lag --json"),
        ("--json --stack=here lag --watch", "--stack=here lag --watch --json"),
        ("--stack here order show 7 --json -- --stack", "--stack here order show 7 --json -- --stack"),
        ("lag --stack", "--stack"),  # and is told that it needs a value
        ("stock RED-LAMP", "stock RED-LAMP"),
        ("", ""),
    ],
)
def test_stack_and_json_may_stand_before_the_command_and_after_it(typed: str, understood: str):
    assert in_place(typed.split()) == understood.split()


@pytest.mark.parametrize("words", ["--stack {0} lag", "lag --stack {0}", "--json lag --stack={0}"])
def test_a_stack_is_heard_of_wherever_it_is_named(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["isthmus", *words.format(tmp_path / "no-stack").split()])
    with pytest.raises(SystemExit):
        main()
    assert f"no local stack in {tmp_path / 'no-stack'}" in capsys.readouterr().err


def test_without_a_stack_and_an_environment_it_says_what_to_do(tmp_path: Path):
    directory = tmp_path / "no-stack"
    with pytest.raises(CliError, match=r"no local stack in .*no-stack: run `make up`, or set ISTHMUS_ORDER_URL"):
        Connection(directory, settings()).url("order")
    assert not directory.exists()


def test_a_service_that_is_away_is_named_with_its_address():
    connection = Connection(None, settings(order_url=NOWHERE, token=SecretStr("x")))
    with pytest.raises(CliError, match=f"the order service does not answer at {NOWHERE}"):
        connection.get("order", "/orders")


def group(committed: Mapping[int, int]) -> Group:
    """It reads HOLDS, and has committed these offsets by partition."""
    places = {(HOLDS.name, partition): offset for partition, offset in committed.items()}
    return Group("isthmus.order.join_answers", 1, frozenset({HOLDS.name}), places)


PLACES = {(HOLDS.name, 0): (0, 10), (HOLDS.name, 1): (4, 10), (ORDERS.name, 0): (0, 99)}


@pytest.mark.parametrize(
    ("committed", "expected"),
    [
        ({0: 10, 1: 10}, 0),
        ({0: 7, 1: 10}, 3),
        ({0: 10}, 6),  # nothing committed: nothing read of what is kept
        ({0: 10, 1: 1}, 6),  # what is no longer kept counts for nobody
        ({0: 11, 1: 10}, 0),  # it read on after the ends were asked for
        ({}, 16),
    ],
)
def test_a_lag_is_what_is_kept_and_not_read(committed: dict[int, int], expected: int):
    assert lags([group(committed)], PLACES) == [Lag("isthmus.order.join_answers", HOLDS.name, expected, 1)]


def test_groups_that_read_other_topics_only_are_not_shown():
    other = Group("somebody", 1, frozenset({"elsewhere"}), {("elsewhere", 0): 1})
    assert lags([other], PLACES) == []


def test_a_topic_that_is_not_there_is_listed_as_such():
    lines = {one["topic"]: one for one in topic_rows(PLACES, {HOLDS.name: 1000})}
    assert (lines[HOLDS.name]["messages"], lines[HOLDS.name]["retention_ms"]) == (16, 1000)
    assert (lines[HOLDS.name]["partitions"], lines[HOLDS.name]["there"]) == (2, True)
    assert (lines["isthmus.notify.care.v1"]["there"], lines["isthmus.notify.care.v1"]["messages"]) == (False, 0)


def printed(what: Any, width: int = 100) -> str:
    out = Console(file=io.StringIO(), width=width)
    out.print(what)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_names_are_shown_as_they_are_and_never_cut():
    made = table("sku", "units", right="units")
    made.add_row(*cells("[red]LAMP[/]" + "x" * 150, 5))
    text = printed(made)
    assert "[red]LAMP[/]" in text
    assert text.count("x") == 150


def test_lines_show_what_was_cancelled_and_what_it_cost():
    line = {"line": 1, "sku": "RED-LAMP", "quantity": 3, "cancelled": 1, "unit_price": "24.90", "discount": "0.00",
            "total": "74.70", "tax": "12.45"}  # fmt: skip
    unpriced = {**line, "line": 2, "cancelled": 0, "unit_price": None, "discount": None, "total": None, "tax": None}
    text = [row.split() for row in printed(lines_table({"lines": [line, unpriced]})).splitlines()]
    assert text[-2:] == [["1", "RED-LAMP", "3", "1", "24.90", "74.70", "12.45"], ["2", "RED-LAMP", "3"]]


def test_parcels_show_where_they_are_and_whether_they_are_late():
    parcel = {"number": 1, "warehouse": "BER", "carrier": "swift", "tracking": "T-1", "state": "shipped", "late": True,
              "promised_at": "2026-03-03T12:00:00+00:00", "items": {"RED-LAMP": 2}}  # fmt: skip
    (text,) = [printed(part) for part in parcels_table({"parcels": [parcel]})]
    assert " ".join(text.splitlines()[-1].split()) == "1 BER swift T-1 shipped, late 2026-03-03 12:00:00 2 RED-LAMP"
    assert parcels_table({"parcels": []}) == ()
