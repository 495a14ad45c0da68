"""Rows of past orders: each gets one verdict, and cancellations find what they undo."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path

import pytest

from bench.replay import rows
from bench.replay.plan import Plan, make, match
from bench.replay.rows import FormatError

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"


def planned(tmp_path: Path, text: str, *, confirmed: set[str] | None = None) -> Plan:
    file = tmp_path / "orders.csv"
    file.write_text(HEADER + text)
    plan = make(rows.read(file))
    match(plan, {order.reference for order in plan.orders} if confirmed is None else confirmed)
    bought = sum(len(order.lines) for order in plan.orders)
    assert plan.rows == bought + len(plan.undos) + sum(plan.aside.values())  # every row has one place
    return plan


def test_rows_of_one_invoice_are_one_order(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "536365,85123a,RED LAMP,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n"
        "536365,71053,BLUE CUP,2,2010-12-01 08:26:00,3.39,17850.0,United Kingdom\n",
    )
    (order,) = plan.orders
    assert (order.reference, order.amount) == ("536365", Decimal("22.08"))
    body = order.body("past", "")
    assert body["lines"][0] == {"sku": "85123A", "quantity": 6, "unit_price": "2.55"}
    assert body["buyer"] == {"channel_id": "17850"}
    assert body["recipient"]["country"] == "GB"
    assert body["placed_at"] == "2010-12-01T08:26:00+00:00"


def test_summer_time_is_local_time(tmp_path: Path) -> None:
    plan = planned(tmp_path, "1,85123A,LAMP,1,2011-07-01 12:00:00,1.00,1,EIRE\n")
    assert plan.orders[0].body("past", "")["placed_at"] == "2011-07-01T12:00:00+01:00"
    assert plan.orders[0].body("past", "")["recipient"]["country"] == "IE"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,POST,POSTAGE,1,2010-12-01 08:26:00,18.00,1,France", "not a product"),
        ("1,m,Manual,1,2010-12-01 08:26:00,18.00,1,France", "not a product"),
        ("1,gift_0001_40,Voucher,1,2010-12-01 08:26:00,34.00,,United Kingdom", "not a product"),
        ("1,22139,,56,2010-12-01 11:52:00,0,,United Kingdom", "no price"),
        ("A1,22139,Adjust,1,2010-12-01 11:52:00,10,,United Kingdom", "accounting adjustment"),
        ("1,22139,damaged,-10,2010-12-01 11:52:00,1.50,,United Kingdom", "stock write-off"),
        ("1,22139,LAMP,many,2010-12-01 11:52:00,1.50,,United Kingdom", "malformed"),
        ("1,22139,LAMP,1.5,2010-12-01 11:52:00,1.50,,United Kingdom", "malformed"),
        ("1,22139,LAMP,NaN,2010-12-01 11:52:00,1.50,,United Kingdom", "malformed"),
        ("1,22139,LAMP,1,yesterday,1.50,,United Kingdom", "malformed"),
        ("1,22139,LAMP,0,2010-12-01 11:52:00,1.50,,United Kingdom", "malformed"),
        ("1,22139,LAMP,1,2010-12-01 11:52:00,1.50,,United Kingdom,more", "malformed"),
        (",22139,LAMP,1,2010-12-01 11:52:00,1.50,,United Kingdom", "malformed"),
        ("1,22139,LAMP,2000000,2010-12-01 11:52:00,1.50,,United Kingdom", "absurd"),
        ("C1,22139,LAMP,-1,2010-12-01 11:52:00,1.50,,United Kingdom", "cancellation by an unknown customer"),
        ("C1,22139,LAMP,-1,2010-12-01 11:52:00,1.50,7,United Kingdom", "cancellation without an earlier purchase"),
        ("C1,22139,LAMP,1,2010-12-01 11:52:00,1.50,7,United Kingdom", "cancellation with a positive quantity"),
    ],
)
def test_a_row_that_is_no_order_is_set_aside_with_its_reason(tmp_path: Path, row: str, reason: str) -> None:
    plan = planned(tmp_path, row + "\n")
    assert plan.orders == []
    ((told, number),) = plan.aside.items()
    assert number == 1
    assert told.startswith(reason)


def test_a_guest_orders_without_a_number(tmp_path: Path) -> None:
    plan = planned(tmp_path, "1,22139,LAMP,1,2010-12-01 11:52:00,1.50,,United Kingdom\n")
    assert plan.orders[0].body("past", "")["buyer"] == {}


def test_a_cancellation_undoes_the_latest_earlier_purchase_with_enough_left(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "1,LAMP1,LAMP,5,2010-12-01 10:00:00,2.00,7,France\n"
        "2,LAMP1,LAMP,5,2010-12-02 10:00:00,2.00,7,France\n"
        "3,LAMP1,LAMP,2,2010-12-03 10:00:00,2.00,7,France\n"  # too few
        "4,LAMP1,LAMP,9,2010-12-09 10:00:00,2.00,7,France\n"  # later
        "5,LAMP1,LAMP,9,2010-12-03 10:00:00,2.00,8,France\n"  # somebody else's
        "C6,LAMP1,LAMP,-4,2010-12-04 10:00:00,2.00,7,France\n"
        "C7,LAMP1,LAMP,-4,2010-12-05 10:00:00,2.00,7,France\n"
        "C8,LAMP1,LAMP,-4,2010-12-06 10:00:00,2.00,7,France\n",
    )
    undone = [(undo.row.invoice, undo.order.reference, undo.units) for undo in plan.undos]
    assert undone == [("C6", "2", 4), ("C7", "1", 4)]
    assert plan.aside == {"cancellation without an earlier purchase to undo": 1}


def test_a_refused_order_has_nothing_to_undo(tmp_path: Path) -> None:
    text = (
        "1,LAMP1,LAMP,5,2010-12-01 10:00:00,2.00,7,France\n"
        "2,LAMP1,LAMP,5,2010-12-02 10:00:00,2.00,7,France\n"
        "C3,LAMP1,LAMP,-4,2010-12-04 10:00:00,2.00,7,France\n"
    )
    assert [undo.order.reference for undo in planned(tmp_path, text, confirmed={"1"}).undos] == ["1"]


def test_an_invoice_of_two_customers_is_two_orders(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "1,LAMP1,LAMP,5,2010-12-01 10:00:00,2.00,7,France\n1,LAMP1,LAMP,5,2010-12-01 10:00:00,2.00,8,France\n",
    )
    assert [order.reference for order in plan.orders] == ["1", "1/8"]


def test_a_compressed_file_is_read_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv.gz"
    file.write_bytes(gzip.compress((HEADER + "1,LAMP1,LAMP,1,2010-12-01 10:00:00,2.00,7,France\n").encode()))
    assert len(make(rows.read(file)).orders) == 1


def test_what_is_no_such_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(FormatError, match="lacks the columns InvoiceNo"):
        list(rows.read(file))
    with pytest.raises(FormatError, match="neither a file nor a folder"):
        rows.files(tmp_path / "nowhere")
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(b"not gzip")
    with pytest.raises(FormatError, match=r"broken\.csv\.gz cannot be read"):
        list(rows.read(broken))
