"""The order service at work on a real Postgres, between neighbours and an outside world in memory, one step at a time.

Everything that can happen to orders is a method here. ``look`` holds the tables to what must be true at any instant,
``drive_to_the_end`` lets everybody do what he should, and ``judge`` asks the checkers of ``bench``.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import asyncpg
import httpx2
import orjson

from bench import evidence, invariants
from bench.evidence import Evidence, Rows
from deploy.local.stack import Stack
from services.order import handlers, reminders
from services.order.payments.worker import PaymentCalls
from services.order.shipping import webhooks as parcel_notices
from services.order.shipping.worker import ParcelCalls
from services.order.state import ENDED
from shared.calls import Calls
from shared.consume import Due
from shared.messages import Message
from shared.postgres import Connection, Database, Row
from shared.topics import HOLDS, IDENTIFICATIONS, INTAKE, ORDERS, QUOTES
from tests.support.databases import Databases
from tests.support.http import Issuer, client_of
from tests.support.kernel import deliver, rows
from tests.support.neighbours import KERNEL, Customers, Inventory, Log, Pricing
from tests.support.outside import AddressBook, Bank, Haulier, Weather, Wire
from tests.support.shop import SCOPES, SETTINGS, app_of, body, open_shop, place

GIVE_UP = timedelta(days=14)
ANSWERS = (IDENTIFICATIONS, HOLDS, QUOTES)
ENDINGS = ("OrderRejected", "OrderCancelled", "OrderExpired", "OrderClosed")
ROUNDS = 20  # of everybody doing what he should, after which an order that is still open is stuck
TABLES = """orders, timeline, payments, refunds, parcels, ledger, care_steps, sealed_buyers, outbox, idempotency_keys,
            known_items, sealing_keys"""

Whom = Literal["bank", "haulier"]
Who = Literal["inventory", "customers", "pricing"]

SEEN = """
SELECT o.order_id, o.state, o.version, o.total, o.cancelled_amount, coalesce(p.captured, 0) AS captured,
       coalesce(p.refunded, 0) AS refunded, p.payment_id::text, p.provider, p.due_at,
       coalesce(p.state IN ('requested', 'pending', 'action_required'), false) AS unpaid,
       (SELECT count(*) FROM timeline t WHERE t.order_id = o.order_id) AS steps,
       (SELECT coalesce(sum(r.amount), 0) FROM refunds r WHERE r.order_id = o.order_id AND r.state = 'requested')
           AS refunding
FROM orders o LEFT JOIN payments p USING (order_id)
"""
BOOKED = "SELECT order_id, cause, accounts, amounts FROM ledger"
OUTBOX = "SELECT id, aggregatetype, type, payload, sequence FROM outbox ORDER BY position"
FORGOTTEN = "SELECT refund_id FROM refunds WHERE state = 'requested' AND due_at IS NULL"
DUE = """
SELECT order_id FROM payments WHERE due_at IS NOT NULL UNION ALL
SELECT order_id FROM refunds WHERE due_at IS NOT NULL UNION ALL
SELECT order_id FROM parcels WHERE due_at IS NOT NULL
"""
TIME_FOR: Mapping[Whom, Sequence[str]] = {
    "bank": ("UPDATE payments SET due_at = now() WHERE due_at IS NOT NULL",
             "UPDATE refunds SET due_at = now() WHERE due_at IS NOT NULL"),
    "haulier": ("UPDATE parcels SET due_at = now() WHERE due_at IS NOT NULL",),
}  # fmt: skip
DEADLINE = "UPDATE orders SET deadline_at = now() - interval '1 s' WHERE deadline_at IS NOT NULL AND order_id = ANY($1)"
DAYS = """
UPDATE parcels SET promised_at = promised_at - $2 * interval '1 day', since = since - $2 * interval '1 day'
WHERE order_id = $1 AND state <> 'booking' -- a carrier that answers nothing for weeks may have booked all the same
"""
LONG_SETTLED = "UPDATE orders SET changed_at = now() - interval '1 hour' WHERE settled"


@dataclass
class House:
    """What all runs of a test share: an order service's database with its HTTP, emptied before each run."""

    database: Database
    client: httpx2.AsyncClient
    _admin: Connection

    @staticmethod
    @asynccontextmanager
    async def open(stack: Stack) -> AsyncGenerator[House]:
        databases = await Databases.open(stack)
        name = await databases.create("order")
        await databases._admin.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')  # nobody pulls the plug
        database = await Database.open(databases.url("order", name), max_size=4)
        admin = await asyncpg.connect(f"{stack._admin_url().rpartition('/')[0]}/{name}")
        issuer = Issuer()
        app = app_of(database, issuer, Bank())
        app.include_router(parcel_notices.routes(database, Haulier(), GIVE_UP))
        try:
            async with client_of(app, issuer.token(SCOPES, exp=4102444800)) as client:
                yield House(database, client, admin)
        finally:
            await admin.close()
            database.pool.terminate()
            await databases.drop(name)
            await databases.close()

    async def begin(self) -> Process:
        await self._admin.execute(f"TRUNCATE {TABLES}")
        await open_shop(self.database)
        return Process(self)


class Process:
    """Some orders, and everybody who has to do with them. Orders are called by their number."""

    def __init__(self, house: House):
        self.house = house
        self.orders: list[UUID] = []
        self.log = Log()
        self.readers = {
            "inventory": Inventory(self.log), "customers": Customers(self.log), "pricing": Pricing(self.log),
        }  # fmt: skip
        self.bank, self.haulier = Bank(), Haulier()
        self._addresses = AddressBook()
        payments = PaymentCalls(house.database, self.bank)
        parcels = ParcelCalls(house.database, self.haulier, self._addresses, GIVE_UP)
        self._out: Mapping[Whom, tuple[Calls[Any], Wire]] = {
            "bank": (payments.calls, self.bank.wire), "haulier": (parcels.calls, self.haulier.wire),
        }  # fmt: skip
        self._tasks: dict[Whom, set[asyncio.Task[None]]] = {"bank": set(), "haulier": set()}
        self._consumers = handlers.build(SETTINGS.payment_deadline)
        self._answers: list[Message[Any]] = []  # as they were heard
        self._heard: Counter[tuple[str, UUID]] = Counter()
        self._told: set[tuple[Whom, int]] = set()
        self._ended: dict[UUID, str] = {}
        self._commands = 0
        self.silent: Sequence[Whom] = ()  # whose notices never come: asking must do

    # What customers and time do

    async def place(self, plans: Sequence[Mapping[str, Any]], unserved: str | None = None) -> None:
        bodies = [body(f"shop-{len(self.orders) + n}", **plan) for n, plan in enumerate(plans)]
        placed = await place(self.house.database, *bodies)
        self.orders += placed
        if unserved:
            self.haulier.unserved.add((str(placed[0]), unserved))

    async def command(self, order: int, what: str, **content: Any) -> None:
        self._commands += 1
        headers = {"Idempotency-Key": str(self._commands)}
        path = f"/orders/{self.orders[order]}/{what}"
        for _ in range(2):  # told twice, it is one
            answer = await self.house.client.post(path, json=content, headers=headers)
            assert answer.status_code in (200, 202, 404, 409), answer.text

    async def deadline(self, orders: Sequence[int]) -> None:
        """The answers, or the payment, of these orders have not come in time."""
        judge = self._consumers.subscriptions[0].judge
        assert judge is not None
        async with self.house.database.transaction() as tx:
            await tx.db.execute(DEADLINE, [self.orders[order] for order in orders])
        async with self.house.database.transaction() as tx:
            await judge(tx, Due(await tx.db.fetchval("SELECT clock_timestamp()"), range(12)))

    async def days_pass(self, order: int, days: int) -> None:
        async with self.house.database.transaction() as tx:
            await tx.db.execute(DAYS, self.orders[order], float(days))

    async def remind(self) -> None:
        async with self.house.database.transaction() as tx:
            await tx.db.execute(LONG_SETTLED)
        await reminders.remind_settled(self.house.database)

    # What the other services do

    def read(self, who: Who, order: int, most: int = 1) -> int:
        """A service reads on, and answers; returns how many messages there were."""
        reader = self.readers[who]
        return sum(reader.read(self.orders[order]) for _ in range(most))

    async def join(self, picks: Sequence[tuple[int, int, bool]]) -> int:
        """A batch of answers comes in: of each picked order and service the next one, or the last one again."""
        batch: list[Message[Any]] = []
        for order, number, again in picks:
            topic, order_id = ANSWERS[number], self.orders[order]
            place, said = (topic.name, order_id), self.log.of(topic, order_id)
            if self._heard[place] < len(said) and not again:
                self._heard[place] += 1
                self._answers.append(said[self._heard[place] - 1])
            elif not self._heard[place]:
                continue
            batch.append(said[self._heard[place] - 1])
        if batch:
            await deliver(self.house.database, self._consumers, "join_answers", *batch)
        return len(batch)

    async def everybody_answers(self) -> int:
        """All is read, and all is heard."""
        everything = sum(self.read(who, order, 100) for order in range(len(self.orders)) for who in self.readers)  # pyright: ignore[reportArgumentType]
        picks = [
            (order, number, False)
            for order, order_id in enumerate(self.orders)
            for number, topic in enumerate(ANSWERS)
            for _ in range(len(self.log.of(topic, order_id)) - self._heard[topic.name, order_id])
        ]
        return everything + await self.join(picks)

    # What the outside world does

    async def ask(self, whom: Whom, weather: Weather) -> None:
        """All that is due, or leased, is asked for; what comes of it is not stored yet."""
        calls, wire = self._out[whom]
        async with self.house.database.transaction() as tx:
            for query in TIME_FOR[whom]:
                await tx.db.execute(query)
        wire.weather, self._addresses.away = weather, weather == "unheard"
        await calls._claim()
        self._tasks[whom] |= calls._calls
        await self._settle(whom)
        wire.weather = "clear"

    async def store(self, whom: Whom, *, twice: bool = False) -> None:
        calls, _ = self._out[whom]
        outcomes, calls._outcomes[:] = list(calls._outcomes), []
        for _ in range(2 if twice else 1):
            if outcomes:
                await calls._store_outcomes(outcomes)

    async def go_on(self, whom: Whom, weather: Weather = "clear") -> None:
        """Calls that were held up arrive."""
        wire = self._out[whom][1]
        wire.weather = weather
        wire.go_on()
        await self._settle(whom)
        wire.weather = "clear"

    async def die(self, whom: Whom) -> None:
        """The process is killed, and what it knew is gone.

        What was on its way to the bank arrives all the same, where a notice will tell of it.
        """
        calls, wire = self._out[whom]
        if whom == "bank" and whom not in self.silent:
            await self.go_on(whom)
        for task in self._tasks[whom]:
            task.cancel()
        await asyncio.gather(*self._tasks[whom], return_exceptions=True)
        wire.cut()
        self._tasks[whom].clear()
        calls._outcomes.clear()

    async def _settle(self, whom: Whom) -> None:
        tasks, wire = self._tasks[whom], self._out[whom][1]
        while sum(not task.done() for task in tasks) > wire.held_up:  # noqa: ASYNC110 - some wait for the wire, others for the database
            await asyncio.sleep(0.0005)
        for task in [one for one in tasks if one.done()]:
            tasks.discard(task)
            task.result()

    def payment(self, order: int, status: str) -> None:
        """The buyer, or his bank, has decided."""
        for message in self.log.of(ORDERS, self.orders[order]):
            if type(message.event).__name__ == "PaymentRequested":
                charge = self.bank.charges.get(str(message.event.payment_id))
                if charge is not None:
                    self.bank.comes_to(charge, status)

    def parcel(self, order: int, number: int, status: str) -> None:
        for one in list(self.haulier.shipments.values()):
            if one.reference.startswith(f"{self.orders[order]}/{number}/"):
                self.haulier.moves(one, status)

    async def tell(self, whom: Whom, picks: Sequence[int]) -> None:
        """Notices come, whichever and how often."""
        notices = self._notices(whom)
        path = "/webhooks/payments" if whom == "bank" else "/webhooks/carrier"
        for pick in picks if notices else ():
            answer = await self.house.client.post(path, content=notices[pick % len(notices)])
            assert answer.status_code == 204, answer.text
            self._told.add((whom, pick % len(notices)))

    def _notices(self, whom: Whom) -> Sequence[bytes]:
        if whom in self.silent:
            return ()
        return self.bank.notices if whom == "bank" else self.haulier.notices

    def _untold(self, whom: Whom) -> Sequence[int]:
        return [n for n in range(len(self._notices(whom))) if (whom, n) not in self._told]

    # What must be true

    async def look(self) -> None:
        """Hear what the service has said, and hold its tables to what is true at any instant."""
        await self._relay()
        found = await rows(self.house.database, SEEN)
        books, causes = await self._books()
        assert causes <= self.log.ids, "entries of events that were never said"
        assert not await rows(self.house.database, FORGOTTEN), "refunds that nobody asks for"
        for row in found:
            self._holds(row, books[row["order_id"]])

    async def _relay(self) -> None:
        async with self.house.database.transaction() as tx:
            for row in await tx.db.fetch(OUTBOX):
                topic = ORDERS if row["aggregatetype"] == ORDERS.name else INTAKE
                event = topic.events[row["type"]].model_validate(orjson.loads(row["payload"]))
                self.log.append(topic, event, row["id"], row["sequence"])
            await tx.db.execute("DELETE FROM outbox")

    async def _books(self) -> tuple[Mapping[UUID, Counter[str]], set[UUID]]:
        books: dict[UUID, Counter[str]] = defaultdict(Counter[str])
        causes: set[UUID] = set()
        for row in await rows(self.house.database, BOOKED):
            causes.add(row["cause"])
            assert sum(row["amounts"]) == 0
            for account, amount in zip(row["accounts"], row["amounts"], strict=True):
                books[row["order_id"]][account] += amount
        return books, causes

    def _holds(self, row: Row, books: Counter[str]) -> None:
        order_id, state = row["order_id"], row["state"]
        said = Counter(type(one.event).__name__ for one in self.log.of(ORDERS, order_id))
        seen = f"{dict(row)}, said {dict(said)}, books {dict(books)}"
        assert row["version"] == row["steps"] == said.total(), seen
        assert self._ended.setdefault(order_id, state) == state if order_id in self._ended else True, seen
        if state in ENDED:
            self._ended[order_id] = state
        assert sum(said[name] for name in ENDINGS) == (state in ENDED), seen
        assert max(said["PaymentCaptured"], said["OrderConfirmed"], said["OrderSettled"] and 1) <= 1, seen
        assert not row["unpaid"] or row["due_at"] is not None, f"a payment that nobody asks about: {seen}"
        self._holds_money(row, books, bool(said["OrderConfirmed"]), seen)

    def _holds_money(self, row: Row, books: Counter[str], confirmed: bool, seen: str) -> None:
        captured, refunded, refunding = row["captured"], row["refunded"], row["refunding"]
        assert 0 <= refunded <= refunded + refunding <= captured, seen
        due = row["total"] - row["cancelled_amount"] if confirmed else Decimal(0)
        if row["state"] in ENDED | {"confirmed"}:
            assert captured - refunded - refunding == due, seen
        charge = self.bank.charges.get(row["payment_id"] or "")
        if row["provider"] == "card" and captured:
            assert charge is not None, seen
            assert (charge.status, charge.amount) == ("captured", captured), seen
            assert refunded <= charge.refunded <= refunded + refunding, seen
        kept = captured - refunded
        assert books["cash"] + books["provider_fees"] + books["channel_fees"] == kept, seen
        assert books["receivable"] == due - kept, seen
        sold = ("revenue", "refunds", "tax", "discount", "points_liability", "points_granted")
        assert -sum(books[account] for account in sold) == due, seen

    # How it ends

    async def drive_to_the_end(self) -> None:
        """Everybody does what he should, and deadlines pass, until nothing is left to be done."""
        for number in range(ROUNDS):
            idle = not await self.everybody_answers() and not self._untold("bank") and not self._untold("haulier")
            if (
                idle
                and number > 1
                and not await rows(self.house.database, DUE)
                and len(self._ended) == len(self.orders)
            ):
                return
            for whom in self._out:
                await self.go_on(whom)
                await self.store(whom)
                await self.ask(whom, "clear")
                await self.store(whom)
                await self.tell(whom, self._untold(whom))
                await self.look()
            if number:
                await self.deadline(range(len(self.orders)))
                for one in list(self.haulier.shipments.values()):
                    self.haulier.moves(one, "delivered")
                for order, order_id in enumerate(self.orders):
                    if order_id not in self._ended:
                        await self.command(order, "fulfilments")
            if number and (number + len(self.orders)) % 2:
                await self.remind()
            await self.look()
        raise AssertionError(f"stuck: {[dict(row) for row in await rows(self.house.database, SEEN)]}")

    async def say_it_all_again(self) -> None:
        """What everybody has said before changes nothing."""
        before = len(self.log.messages)
        if self._answers:
            await deliver(self.house.database, self._consumers, "join_answers", *self._answers)
        for whom in self._out:
            await self.tell(whom, range(len(self._notices(whom))))
        await self.look()
        assert self.log.messages[before:] == []

    async def judge(self) -> None:
        """The checkers of the platform, on these tables and what everybody else has in his books."""
        tables: dict[str, dict[str, Rows]] = {"order": {}, "notify": {"care": [], **KERNEL}}
        for name, query in {**evidence.QUERIES["order"], **evidence.KERNEL}.items():
            found = await rows(self.house.database, query, *([-1.0] if "$1" in query else []))
            tables["order"][name] = [dict(row) for row in found]
        for service, reader in zip(("inventory", "customer", "pricing"), self.readers.values(), strict=True):
            tables[service] = {**reader.tables(), **KERNEL}
        findings = invariants.judge(Evidence(tables, self.log.logged(), self.bank.log(), self.haulier.log()))
        broken = [f"{one.id}: {detail}" for one in findings for detail in one.broken]
        assert not broken, "\n".join(broken)
