"""The books of a replay, month by month, beside what the files say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container
from datetime import datetime
from decimal import Decimal

from rich.console import Console
from rich.table import Table

from bench.platform import Platform
from bench.replay.plan import Plan
from bench.replay.rows import LOCAL_TIME, part

ZERO = Decimal(0)


def in_files(plan: Plan, sold: Container[str]) -> dict[str, tuple[Decimal, Decimal]]:
    """Per month, as in 2011-05: what the orders named in ``sold`` are worth, and what cancellations took back."""
    bought: dict[str, Decimal] = defaultdict(Decimal)
    back: dict[str, Decimal] = defaultdict(Decimal)
    left: dict[tuple[str, int], int] = {}
    for order in plan.orders:
        if order.reference in sold:
            bought[_month(order.rows[0].at)] += order.amount
    for undo in plan.undos:  # in the order of time
        row, key = undo.order.lines[undo.line - 1].row, (undo.order.reference, undo.line)
        before = left.get(key, row.quantity)
        left[key] = before - undo.units
        back[_month(undo.row.at)] += part(row, before) - part(row, left[key])
    return {month: (bought[month], back[month]) for month in sorted(bought.keys() | back.keys())}


async def compare(platform: Platform, plan: Plan, channel: str, sold: Container[str], console: Console) -> bool:
    """Print months of ``channel``; returns whether books and files agree to the cent and the trial balance is zero."""
    table = Table(
        title="\nThe ledger by month of business time, GBP, tax contained", title_justify="left", show_edge=False
    )
    for title in ("", "sold: files", "ledger", "taken back: files", "ledger", "difference"):
        table.add_column(title, justify="right" if title else "left")
    equal = True
    for month, (bought, back) in in_files(plan, sold).items():
        ledger_sold, ledger_back = await booked(platform, channel, month)
        difference = ledger_sold - bought - (ledger_back - back)
        exact = ledger_sold == bought and ledger_back == back
        equal = equal and exact
        amounts = (bought, ledger_sold, back, ledger_back, difference)
        table.add_row(month, *(f"{amount:,.2f}" for amount in amounts), style=None if exact else "red")
    console.print(table)
    balance = (await platform.ask("order", "GET", "/ledger/trial-balance")).json()["currencies"]
    for of in balance:
        zero = Decimal(of["debit"]) == Decimal(of["credit"])
        equal = equal and zero
        console.print(f"Trial balance {of['currency']}: debit {of['debit']}, credit {of['credit']}")
    return equal


async def booked(platform: Platform, channel: str, month: str) -> tuple[Decimal, Decimal]:
    """What the ledger says was sold, and taken back, in a month; with the tax contained in it."""
    first = datetime.fromisoformat(f"{month}-01").replace(tzinfo=LOCAL_TIME)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    params = {"currency": "GBP", "channel": channel, "from": first.isoformat(), "until": following.isoformat()}
    found = (await platform.ask("order", "GET", "/ledger/trial-balance", params=params)).json()["currencies"]
    accounts = {one["account"]: one for of in found for one in of["accounts"]}

    def side(account: str, name: str) -> Decimal:
        return Decimal(accounts[account][name]) if account in accounts else ZERO

    return side("revenue", "credit") + side("tax", "credit"), side("refunds", "debit") + side("tax", "debit")


def _month(at: datetime) -> str:
    return at.astimezone(LOCAL_TIME).strftime("%Y-%m")
