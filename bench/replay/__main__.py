"""``make replay DATA=…``: past orders, from files in the Online Retail format, through the same API as any other order.

A replay is a marketplace channel: its orders are paid, have their own prices, and business time from the file. Every
row is accounted for. With ``--stock scarce`` only part of what was bought is there, under SKUs of its own.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench import invariants
from bench.platform import Platform, PlatformError, pieces
from bench.replay import months, rows
from bench.replay import plan as planning
from bench.replay.plan import Order, Plan, Undo
from deploy.local.errors import StackError
from deploy.local.stack import DEFAULT

console = Console(highlight=False, soft_wrap=True)
Stock = Literal["ample", "scarce"]

SOLD = ("confirmed", "closed", "cancelled")
PIECE = 100  # orders per bulk request
SCARCE_SHARE = Decimal("0.6")  # of what was bought is in stock
REFUSALS = DEFAULT / "replay-refusals.csv"


class Replay:
    """One run: ``channel`` and SKUs are apart per kind of stock, so that runs do not touch each other."""

    def __init__(self, platform: Platform, plan: Plan, stock: Stock, key: str, progress: Progress):
        self._platform = platform
        self._plan = plan
        self._stock = stock
        self._key = f"replay/{stock}/{key}"
        self._progress = progress
        self.channel = "online-retail" if stock == "ample" else "online-retail-scarce"
        self._prefix = "" if stock == "ample" else "SCARCE-"
        self.ids: dict[str, str] = {}  # order ids by reference
        self.placed: dict[str, dict[str, Any]] = {}  # what became of orders, by reference

    async def run(self) -> None:
        await self._stock_up()
        await self._place()
        await self._settle()
        await self._undo()
        await self._fulfil()
        await self._fetch()

    async def _stock_up(self) -> None:
        skus, names = self._plan.skus, self._plan.names
        task = self._progress.add_task("products and stock", total=len(skus))
        items = [{"sku": self._prefix + sku, "name": names[sku][:200]} for sku in sorted(skus)]
        share = Decimal(1) if self._stock == "ample" else SCARCE_SHARE
        receipts = [
            {"sku": self._prefix + sku, "warehouse": "replay", "quantity": units}
            for sku, bought in sorted(skus.items())
            if (units := int(bought * share)) > 0
        ]
        house = {"code": "replay", "name": "Replay", "country": "GB", "priority": 50}
        await self._platform.catalogue(items, warehouses=[house], receipts=receipts, key=self._key)
        self._progress.update(task, completed=len(skus))

    async def _place(self) -> None:
        task = self._progress.add_task("orders sent", total=len(self._plan.orders))
        for piece in pieces(self._plan.orders, PIECE):
            await self._place_piece(list(piece))
            self._progress.advance(task, len(piece))

    async def _place_piece(self, orders: list[Order]) -> None:
        """Send a hundred orders; a SKU that the order service has not heard of yet is sent again a little later."""
        until = time.monotonic() + 30
        while orders:
            bodies = [order.body(self.channel, self._prefix) for order in orders]
            reports = await self._platform.place_bulk(bodies)
            again: list[Order] = []
            for order, report in zip(orders, reports, strict=True):
                if report["status"] in (200, 201):
                    self.ids[order.reference] = report["order_id"]
                elif report["status"] == 503 or (report["type"].endswith("unknown_sku") and time.monotonic() < until):
                    again.append(order)
                else:
                    self._plan.orders.remove(order)
                    self._plan.set_aside(order, f"not accepted: {report['title']}: {report.get('detail', '')}"[:90])
            orders = again
            if orders:
                await asyncio.sleep(0.2)

    async def _settle(self) -> None:
        total = len(self.ids)
        task = self._progress.add_task("orders settled", total=total)
        until = time.monotonic() + 600
        while open_ := await self._open("placed", "paying"):
            self._progress.update(task, completed=max(0, total - open_))
            if time.monotonic() > until:
                raise PlatformError(f"{open_} orders or more are still open after ten minutes")
            await asyncio.sleep(0.2)
        self._progress.update(task, completed=total)
        await self._fetch()

    async def _open(self, *states: str) -> int:
        """How many of the channel's orders are in these states; counted up to 500 of each."""
        pages = [
            (await self._platform.ask("order", "GET", "/orders", params=params)).json()["items"]
            for state in states
            if (params := {"channel": self.channel, "state": state, "limit": 500})
        ]
        return sum(len(page) for page in pages)

    async def _undo(self) -> None:
        """Cancel what cancellation rows undo: one command per cancellation and order, in the order of time."""
        planning.match(self._plan, self.sold())
        of_order: dict[str, list[Undo]] = defaultdict(list)
        for undo in self._plan.undos:
            of_order[undo.order.reference].append(undo)
        task = self._progress.add_task("cancellations", total=len(self._plan.undos))
        limit = asyncio.Semaphore(12)

        async def cancel(undos: Sequence[Undo]) -> None:
            async with limit:
                for undo in undos:
                    await self._cancel(undo)
                    self._progress.advance(task)

        await asyncio.gather(*(cancel(undos) for undos in of_order.values()))

    async def _cancel(self, undo: Undo) -> None:
        """One command per row, named by the row: sent again, it finds that its order has heard it."""
        body = {
            "reason": "returned_or_cancelled",
            "lines": [{"line": undo.line, "quantity": undo.units}],
            "occurred_at": undo.row.at.isoformat(),
        }
        path = f"/orders/{self.ids[undo.order.reference]}/cancellations"
        await self._platform.ask("order", "POST", path, json=body, key=f"replay/{undo.name}")

    async def _fulfil(self) -> None:
        """What is left of each order was handed over by the channel, at the time of the order."""
        sold = [order for order in self._plan.orders if self._state(order) == "confirmed"]
        task = self._progress.add_task("orders delivered", total=len(sold))
        limit = asyncio.Semaphore(12)

        async def deliver(order: Order) -> None:
            async with limit:
                path = f"/orders/{self.ids[order.reference]}/fulfilments"
                body = {"occurred_at": order.rows[0].at.isoformat()}
                # cancelled line by line to nothing, an order has ended already
                await self._platform.ask("order", "POST", path, json=body, expect=(200, 409))
                self._progress.advance(task)

        await asyncio.gather(*(deliver(order) for order in sold))
        until = time.monotonic() + 300
        closing = self._progress.add_task("orders closed", total=len(sold))
        while open_ := await self._open("confirmed"):
            self._progress.update(closing, completed=max(0, len(sold) - open_))
            if time.monotonic() > until:
                raise PlatformError(f"{open_} orders or more are not closed after five minutes")
            await asyncio.sleep(0.2)
        self._progress.update(closing, completed=len(sold))

    def sold(self) -> set[str]:
        """The references of orders that came about."""
        return {reference for reference, one in self.placed.items() if one["state"] in SOLD}

    def _state(self, order: Order) -> str | None:
        one = self.placed.get(order.reference)
        return one["state"] if one else None

    async def _fetch(self) -> None:
        cursor: str | None = None
        while True:
            params = {"channel": self.channel, "limit": 500, **({"cursor": cursor} if cursor else {})}
            page = (await self._platform.ask("order", "GET", "/orders", params=params)).json()
            self.placed |= {one["external_reference"]: one for one in page["items"]}
            cursor = page["next"]
            if cursor is None:
                return


def account(plan: Plan, replay: Replay, stock: Stock) -> bool:
    """Print what became of every row and every penny; returns whether all is accounted for."""
    table = Table(title="Rows", title_justify="left", show_edge=False)
    table.add_column("")
    table.add_column("rows", justify="right")
    bought = sum(len(order.lines) for order in plan.orders)
    guests = sum(len(order.lines) for order in plan.orders if order.rows[0].customer is None)
    table.add_row("in the files", f"{plan.rows:,}")
    table.add_row(f"imported: purchases, in {len(plan.orders):,} orders", f"{bought:,}")
    table.add_row("    of these by guests, without a customer number", f"({guests:,})")
    table.add_row("imported: cancellations that undo a purchase", f"{len(plan.undos):,}")
    for reason, number in plan.aside.most_common():
        table.add_row(f"set aside: {reason}", f"{number:,}")
    left = plan.rows - bought - len(plan.undos) - sum(plan.aside.values())
    table.add_row("not accounted for", f"{left:,}", style="red bold" if left else None)
    console.print(table)

    outcome = {order.reference: replay.placed.get(order.reference) for order in plan.orders}
    sold_references = replay.sold()
    sold = [order for order in plan.orders if order.reference in sold_references]
    refused = [order for order in plan.orders if order.reference not in sold_references]
    gross = sum((Decimal(replay.placed[order.reference]["total"]) for order in sold), Decimal(0))
    net = gross - sum((Decimal(replay.placed[order.reference]["cancelled_amount"]) for order in sold), Decimal(0))
    in_file = sum((order.amount for order in plan.orders), Decimal(0))
    file_sold = sum((order.amount for order in sold), Decimal(0))
    undone = sum((undone_amount(order) for order in sold), Decimal(0))
    money = Table(title="\nMoney, GBP", title_justify="left", show_edge=False)
    for title in ("", "in the files", "on the platform", "difference"):
        money.add_column(title, justify="left" if not title else "right")
    if stock == "scarce":
        money.add_row("orders refused for want of stock", f"{in_file - file_sold:,.2f}", "", "")
    money.add_row("orders confirmed", f"{file_sold:,.2f}", f"{gross:,.2f}", f"{gross - file_sold:,.2f}")
    left_in_file = file_sold - undone
    money.add_row("after cancellations", f"{left_in_file:,.2f}", f"{net:,.2f}", f"{net - left_in_file:,.2f}")
    console.print(money)
    differing = sum(undo.row.unit_price != undo.order.lines[undo.line - 1].row.unit_price for undo in plan.undos)
    if differing:
        console.print(
            f"  {differing} cancellation rows name another price than their purchase; what was paid goes back"
        )
    if refused:
        _list_refusals(refused, outcome)
    complete = stock == "scarce" or not refused
    return left == 0 and complete and gross == file_sold and net == left_in_file


def undone_amount(order: Order) -> Decimal:
    """What the file says of an order's units that were cancelled: price of all less price of what is left."""
    return sum((line.row.amount - rows.part(line.row, line.left) for line in order.lines), Decimal(0))


def _list_refusals(refused: Sequence[Order], outcome: dict[str, dict[str, Any] | None]) -> None:
    REFUSALS.parent.mkdir(exist_ok=True)
    with open(REFUSALS, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("order", "lines", "amount", "state", "reason"))
        for order in refused:
            one = outcome[order.reference] or {"state": "missing", "reason": ""}
            writer.writerow((order.reference, len(order.lines), order.amount, one["state"], one["reason"]))
    console.print(f"\n{len(refused)} orders were refused; they are listed in {REFUSALS.relative_to(Path.cwd())}, as in")
    for order in refused[:5]:
        one = outcome[order.reference]
        console.print(f"  {order.reference}  {order.amount:>10,.2f} GBP  {one['state'] if one else 'missing'}: "
                      f"{one['reason'] if one else ''}")  # fmt: skip


async def replay(path: Path, stock: Stock, directory: Path) -> int:
    started = time.monotonic()
    found = rows.files(path)
    digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in found)).hexdigest()[:16]
    plan = planning.make(row for file in found for row in rows.read(file))
    console.print(
        f"{plan.rows:,} rows in {len(found)} file(s): {len(plan.orders):,} orders, "
        f"{len(plan.cancellations):,} cancellations"
    )
    columns = (TextColumn("{task.description:<20}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    async with Platform.connect(directory) as platform:
        with Progress(*columns, console=console) as progress:
            run = Replay(platform, plan, stock, digest, progress)
            await run.run()
        accounted = account(plan, run, stock)
        accounted = await months.compare(platform, plan, run.channel, run.sold(), console) and accounted
        console.print()
        acknowledged = [(run.channel, reference, id_) for reference, id_ in run.ids.items()]
        held = invariants.show(await invariants.at_rest(platform, acknowledged=acknowledged), console)
    verdict = "Every row and penny is accounted for" if accounted else "[red]Not everything is accounted for[/]"
    console.print(f"\n{verdict}; {time.monotonic() - started:.0f} s in all")
    return 0 if accounted and held else 1


def main(
    path: Annotated[Path, typer.Argument(help="a .csv or .csv.gz file, or a folder of them")],
    stock: str = typer.Option("ample", help="ample: all that was bought is there; scarce: part of it"),
    stack: Annotated[Path, typer.Option(help="directory of the running stack")] = DEFAULT,
) -> None:
    """Replay past orders through the platform, and account for every row."""
    try:
        if stock not in ("ample", "scarce"):
            raise PlatformError(f"--stock is ample or scarce, not {stock}")
        sys.exit(asyncio.run(replay(path, stock, stack)))
    except (rows.FormatError, PlatformError, StackError) as error:
        console.print(f"[red]{error}[/]")
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
