"""``make demo``: one order followed to its end, a crowd, and a crowd while services are killed; then the reckoning."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench import invariants, plant, reckoning, shop
from bench.platform import SERVICES, Platform, PlatformError
from bench.reckoning import Run, console
from bench.shop import Buying, Member, Shop
from deploy.local.errors import StackError
from deploy.local.stack import DEFAULT

MEMBERS = 30  # customers who are known beforehand
SHOWN = ("amount", "total", "channel", "reason", "carrier", "tracking", "trigger", "earned")


async def prepare(platform: Platform, run: str) -> list[Member]:
    """A catalogue, prices, coupons, stock, members with points; a provider and a carrier as bad as real ones."""
    await platform.catalogue(shop.items(), warehouses=shop.WAREHOUSES, receipts=shop.receipts(400), key=run)
    await platform.prices("main", "GBP", shop.prices(), key="main")
    for code, limit in ((shop.COUPON, None), (f"{shop.FEW}-{run}", 5)):
        terms = {"percent": "10", "priority": 1, **({"limit_total": limit} if limit else {})}
        await platform.ask("pricing", "PUT", f"/coupons/{code}", json=terms)
    behaviour = {
        "delay_ms": 20, "pending_rate": 0.05, "timeout_rate": 0.002, "drop_rate": 0.01,
        "webhook_duplicate_rate": 0.2, "webhook_reorder_rate": 0.05,
    }  # fmt: skip
    carrying = {
        "delay_rate": 0.02, "loss_rate": 0.01, "timeout_rate": 0.002, "drop_rate": 0.01, "webhook_duplicate_rate": 0.2,
        "webhook_reorder_rate": 0.05, "webhook_loss_rate": 0.02,
    }  # fmt: skip
    await platform.behave("payments", **behaviour)
    await platform.behave("carrier", **carrying)
    members = [await member(platform, number, run) for number in range(MEMBERS)]
    last = shop.items()[-1]["sku"]
    for _ in range(100):  # the order service learns of new items from Kafka
        known = await platform.ask("pricing", "GET", "/prices", params={"sku": last})
        if known.json()["items"]:
            break
        await asyncio.sleep(0.1)
    return members


async def member(platform: Platform, number: int, run: str) -> Member:
    """Register a customer who likes to get mail, and give some points as a welcome."""
    name = shop.PEOPLE[number % len(shop.PEOPLE)]
    email = f"{name.lower()}.{run}.{number}@example.org"
    answer = await platform.ask("customer", "POST", "/customers", json={"email": email, "name": name})
    id_: str = answer.json()["customer_id"]
    consent = {"granted": True, "source": "checkout"}
    await platform.ask("customer", "PUT", f"/customers/{id_}/consents/marketing_email", json=consent)
    points = {"points": 300, "reason": "welcome"}
    await platform.ask("customer", "POST", f"/customers/{id_}/points", json=points, key=f"welcome/{id_}")
    return Member(id_, name, email)


async def one_order(platform: Platform, run: str, member: Member) -> None:
    """Place one order and follow it until it is closed; show its way, its books, and the mails that it brought."""
    order = next(iter(Shop(1, f"{run}-first").buyings(1))).order
    order |= {"lines": [{"sku": "red-lamp", "quantity": 1}, {"sku": "blue-cup", "quantity": 2}]}
    order |= {"payment": {"method": "card", "token": "tok_ok"}, "expected_total": "36.90", "coupon": None}
    order |= {"customer_id": member.customer_id, "buyer": {"name": member.name, "email": member.email}, "points": 100}
    answer = await platform.place(order, wait=20)
    for _ in range(50):
        if answer.status_code != 422:
            break
        await asyncio.sleep(0.2)  # the order service has not heard of the items yet
        answer = await platform.place(order, wait=20)
    if answer.status_code not in (200, 201):
        raise PlatformError(f"the first order was not accepted: {answer.text[:500]}")
    placed = answer.json()
    with console.status("on its way"):
        for _ in range(150):
            if placed["state"] == "closed" and await mails(platform, member, "thank"):
                break
            await asyncio.sleep(0.2)
            placed = (await platform.ask("order", "GET", f"/orders/{placed['order_id']}")).json()
    table = Table(title=f"One order, {placed['order_id']}: {placed['state']}", title_justify="left", show_edge=False)
    for column in ("after", "event", ""):
        table.add_column(column, justify="right" if column == "after" else "left")
    for step in placed["timeline"]:
        detail = ", ".join(f"{k} {v}" for k, v in step["detail"].items() if k in SHOWN)
        table.add_row(f"{step['after_ms']:,.0f} ms", step["type"], detail)
    console.print(table)
    await reckoning.books_of(platform, placed["order_id"])
    console.print("\nMails to the customer")
    for mail in await mails(platform, member):
        console.print(f"  {mail['subject']}")


async def mails(platform: Platform, member: Member, subject: str = "") -> list[dict[str, Any]]:
    """What the mail server took for this customer."""
    found = await platform.ask("mail", "GET", "/messages", params={"to": member.email})
    return [mail for mail in found.json()["data"] if subject in mail["subject"].lower()]


async def crowd(
    platform: Platform, title: str, buyings: Sequence[Buying], rate: float, *, kill: bool, run: Run
) -> None:
    """Send orders at ``rate`` a second; optionally kill -9 each service once meanwhile."""
    started = time.monotonic()
    before = await platform.counts()
    with Progress(
        TextColumn("{task.description:<28}"), BarColumn(16), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"), console=console,
    ) as progress:  # fmt: skip
        sending = progress.add_task(f"{title}: sent", total=len(buyings), note="")
        ending = progress.add_task(f"{title}: settled", total=len(buyings), note="")

        async def send(number: int, buying: Buying) -> None:
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            await buy(platform, buying, run)
            progress.advance(sending)

        async def watch() -> None:
            while True:
                counts = await platform.counts()
                new = {state: n - before.get(state, 0) for state, n in counts.items()}
                done = sum(n for state, n in new.items() if state not in ("placed", "paying"))
                new["confirmed"] = new.get("confirmed", 0) + new.pop("closed", 0)  # on their way, or there
                note = "  ".join(f"{state} {n}" for state, n in sorted(new.items()) if n)
                progress.update(ending, completed=done, note=note)
                if done >= len(buyings):
                    return
                await asyncio.sleep(0.3)

        async def killer() -> None:
            for number, name in enumerate(SERVICES):
                await asyncio.sleep(
                    max(0.0, started + (number + 0.5) / len(SERVICES) * len(buyings) / rate - time.monotonic())
                )
                await asyncio.to_thread(platform.stack.kill, name)
                progress.console.print(f"  kill -9 {name}", style="yellow")

        tasks = [asyncio.create_task(send(n, buying)) for n, buying in enumerate(buyings)]
        watching = asyncio.create_task(watch())
        if kill:
            tasks.append(asyncio.create_task(killer()))
        await asyncio.gather(*tasks)
        try:
            await asyncio.wait_for(watching, 120)
        except TimeoutError as error:
            raise PlatformError(f"{await platform.open_orders()} orders are still open after two minutes") from error


async def buy(platform: Platform, buying: Buying, run: Run) -> None:
    sent = datetime.now(UTC)
    order = buying.order
    answer = await platform.place(order)
    run.answers[answer.status_code] += 1
    if answer.status_code not in (200, 201):
        raise PlatformError(f"an order was not accepted: {answer.status_code} {answer.text[:500]}")
    order_id: str = answer.json()["order_id"]
    run.sent[order_id] = sent
    run.acknowledged.append((order["channel"], order["external_reference"], order_id))
    if buying.twice:
        again = await platform.place(order)
        run.answers[again.status_code] += 1
        if again.json().get("order_id") != order_id:
            run.different.append(order["external_reference"])
    if buying.changes_mind:
        await platform.ask(
            "order", "POST", f"/orders/{order_id}/cancellations", json={"reason": "changed_mind"}, key=order_id,
            expect=(200, 409),
        )  # fmt: skip
    elif buying.thinks_again:
        await platform.ask("order", "GET", f"/orders/{order_id}", headers={"Prefer": "wait=5"})
        await platform.ask(
            "order", "POST", f"/orders/{order_id}/cancellations", json={"reason": "changed_mind"}, key=order_id,
            expect=(200, 202, 409),
        )  # fmt: skip
    elif order["payment"]["token"] == "tok_3ds":
        await confirm_3ds(platform, order_id)


async def confirm_3ds(platform: Platform, order_id: str) -> None:
    """Be the buyer at the bank's page."""
    for _ in range(60):
        order: dict[str, Any] = (await platform.ask("order", "GET", f"/orders/{order_id}")).json()
        if order["state"] not in ("placed", "paying"):
            return
        if order["payment"] and order["payment"]["redirect_url"]:
            path = "/" + order["payment"]["redirect_url"].split("/", 3)[3]
            await platform.ask("payments", "POST", path, params={"outcome": "success"}, expect=range(200, 500))
            return
        await asyncio.sleep(0.5)


async def demo(orders: int, rate: float, seed: int, planted: str | None, directory: Path) -> int:
    if planted is not None:
        plant.check(planted)
    prefix = f"demo{int(time.time())}"
    async with Platform.connect(directory) as platform:
        with console.status("catalogue, prices, coupons, stock"):
            members = await prepare(platform, prefix)
        console.print(f"[bold]A shop opens[/]: {len(shop.items())} products in {len(shop.WAREHOUSES)} warehouses\n")
        await one_order(platform, prefix, members[0])
        console.print()
        stream = list(Shop(seed, prefix, members[1:]).buyings(orders + orders // 3))
        for buying in stream:
            if buying.order.get("coupon") == shop.FEW:
                buying.order["coupon"] = f"{shop.FEW}-{prefix}"
        measured, run = Run(), Run()
        await crowd(platform, "a crowd", stream[:orders], rate, kill=False, run=measured)
        await crowd(platform, "a crowd and kill -9", stream[orders:], rate / 2, kill=True, run=run)
        run.acknowledged += measured.acknowledged
        run.answers += measured.answers
        await all_closed(platform)
        await reckoning.show(platform, prefix, measured, run)
        if planted is not None:
            await plant.plant(platform, planted)
            console.print(f"[yellow]planted a violation of {planted}[/]")
        try:
            findings = await invariants.at_rest(platform, acknowledged=run.acknowledged)
        finally:
            if planted is not None:
                await plant.undo(platform, planted)
        held = invariants.show(findings, console)
        if planted is not None:
            caught = any(finding.id == plant.invariant_of(planted) and not finding.held for finding in findings)
            verdict = "was caught, and is mended; the exit code 1 is meant" if caught else "was NOT caught"
            console.print(f"\n[yellow]{planted} was broken on purpose: it {verdict}[/]")
        urls = platform.stack
        console.print(
            "\nThe stack stays up. Where to look next:\n"
            "  make status                                    every process, its health and address\n"
            "  TOKEN=$(.venv/bin/python -m deploy.local token)\n"
            f'  curl -H "Authorization: Bearer $TOKEN" {urls.url("order")}/orders?limit=3\n'
            f"  curl {urls.url('order')}/metrics                       lag, batches, handler times\n"
            f"  {urls.url('mail')}                         every mail that was sent\n"
            "  ./isthmus order show ORDER-ID                  its timeline, with causes\n"
            "  ./isthmus ledger trial-balance\n"
            "  docs/tutorial.md                               follow one order through the code\n"
            "  make down                                      stop it; the data stay"
        )
        return 0 if held and not run.different and not measured.different else 1


async def all_closed(platform: Platform) -> None:
    """Wait until every confirmed order has been delivered, settled and closed."""
    with Progress(
        TextColumn("{task.description:<28}"), BarColumn(16), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        counts = await platform.counts()
        total = counts.get("confirmed", 0) + counts.get("closed", 0)
        closing = progress.add_task("delivered and closed", total=total)
        until = time.monotonic() + 180
        while left := (counts := await platform.counts()).get("confirmed", 0):
            progress.update(closing, completed=counts.get("closed", 0), total=left + counts.get("closed", 0))
            if time.monotonic() > until:
                raise PlatformError(f"{left} orders are still on their way after three minutes: make status")
            await asyncio.sleep(0.3)
        progress.update(closing, completed=counts.get("closed", 0), total=counts.get("closed", 0))


def main(
    orders: int = typer.Option(450, min=1, max=100_000, help="orders of the undisturbed crowd"),
    rate: float = typer.Option(15.0, min=0.1, max=1000, help="orders a second"),
    seed: int = typer.Option(7, help="of the stream of orders"),
    plant: str | None = typer.Option(None, help="break an invariant on purpose, as in I1, and see it caught"),
    stack: Annotated[Path, typer.Option(help="directory of the running stack")] = DEFAULT,
) -> None:
    """Show Isthmus at work, and hold it to its invariants."""
    try:
        sys.exit(asyncio.run(demo(orders, rate, seed, plant, stack)))
    except (PlatformError, StackError) as error:
        console.print(f"[red]{error}[/]\nSee `make status` and `make logs`.")
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
