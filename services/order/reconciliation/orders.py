"""Orders against those who hold something for them, all the time: walked in slices, looked at again, restated.

A difference is drift only when it is seen twice, the order unchanged in between, and the holder has meanwhile read
past the end that the order's partition had after the first time: then it has applied all that the order ever said.
So a holder that lags, or is away, is never accused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.order import store as order_store
from services.order.reconciliation import store
from services.order.reconciliation.decisions import Difference, differences, due, restated
from services.order.reconciliation.findings import OF_ORDERS, Look, Pace, not_open, weigh
from services.order.reconciliation.holders import Answers, Holders
from services.order.reconciliation.store import Compared, Suspicion, first_id
from shared.clients import UnavailableError
from shared.kafka import KafkaError
from shared.postgres import Database, Row
from shared.telemetry import RECONCILED, log
from shared.work import Worker

AT_ONCE = 500  # orders in one question
LOOKS_AT_ONCE = 200
BEGINNING = UUID(int=0)

Ends = Callable[[], Awaitable[Mapping[int, int]]]
"""The ends of the partitions of orders, asked of Kafka."""


class OrderReconciler:
    """Compares orders at rest with their holders; says again what an order has where somebody differs."""

    def __init__(self, database: Database, holders: Holders, ends: Ends, pace: Pace):
        self._database, self._holders, self._ends, self._pace = database, holders, ends, pace
        self.worker = Worker("reconcile orders", self.turn, every=pace.every)

    async def turn(self) -> bool:
        """One slice of each walk, and what is to be looked at again."""
        try:
            await self._look_again()
            await self._walk("recent orders", first_id(datetime.now(UTC), timedelta(days=self._pace.recent_days)))
            await self._walk("all orders", BEGINNING)
        except (UnavailableError, KafkaError) as error:  # it is no drift that somebody is away
            log.warning("a holder does not answer; compared later", reason=f"{type(error).__name__}: {error}")
        return False

    async def _walk(self, walk: str, beginning: UUID) -> None:
        async with self._database.transaction() as tx:
            begun = await store.begin(tx, walk, self._pace.between)
        if begun is None:
            return
        after = UUID(begun["position"]) if begun["position"] else beginning
        try:
            async with self._database.reading() as db:
                orders = await store.slice_of(db, after, self._pace.rest, AT_ONCE)
            found = await self._suspicions(orders) if orders else []
            position = str(orders[-1].order.order_id) if len(orders) == AT_ONCE else ""
        except BaseException:
            async with self._database.transaction() as tx:
                await tx.db.execute(store.GIVE_UP, walk)
            raise
        async with self._database.transaction() as tx:
            await store.suspect(tx, found, self._pace.rest)
            await store.go_on(tx, walk, position)
        RECONCILED.labels("orders").inc(len(orders))

    async def _suspicions(self, orders: Sequence[Compared]) -> list[Suspicion]:
        answers = await self._holders.ask([one.order.order_id for one in orders])
        found = [
            (one, Suspicion(difference, str(one.order.order_id), one.order.order_id, one.order.version))
            for one in orders
            for difference in _differences(one, answers)
        ]
        new = await not_open(self._database, [suspicion for _, suspicion in found])
        if not new:
            return []
        ends = await self._ends()  # after the orders were read, with nothing of them in the outbox
        partitions = {one.order.order_id: one.partition for one in orders}
        return [
            Suspicion(one.difference, one.subject, one.order_id, one.version, ends.get(partitions[one.order_id], 0))
            for one in new
            if one.order_id is not None
        ]

    async def _look_again(self) -> None:
        async with self._database.reading() as db:
            findings = await store.due(db, OF_ORDERS, LOOKS_AT_ONCE)
        if not findings:
            return
        ids = {row["order_id"] for row in findings}
        answers = await self._holders.ask(sorted(ids))
        async with self._database.reading() as db:  # after the answers: unchanged now, the order was so when they came
            orders = await store.some(db, ids, self._pace.rest)
        ends: Mapping[int, int] = {}
        if any(_needs_end(row, orders) for row in findings):
            ends = await self._ends()
        mend: dict[UUID, list[Row]] = defaultdict(list)
        async with self._database.transaction() as tx:
            await store.put_off(tx, [row for row in findings if row["order_id"] not in orders], self._pace.rest)
            for row in findings:
                one = orders.get(row["order_id"])
                if one is not None and await weigh(tx, _look(row, one, answers, ends), self._pace):
                    mend[one.order.order_id].append(row)
        await self._restate(mend)

    async def _restate(self, findings: Mapping[UUID, Sequence[Row]]) -> None:
        """Say what these orders have, unless they have gone on since."""
        if not findings:
            return
        async with self._database.transaction() as tx:
            orders = await order_store.load(tx, findings, with_lines=True)
            now = datetime.now(UTC)
            for order_id, order in orders.by_id.items():
                rows = findings[order_id]
                if due(order) is None or any(row["version"] != order.version for row in rows):
                    continue
                log.warning("restated", order_id=str(order_id), kinds=[row["kind"] for row in rows])
                cause = orders.cause(order_id, f"restate/{order.version}")
                orders.happen(tx, order, [restated(order, now)], cause, now)
                attempts = max(row["attempts"] for row in rows)
                await store.repaired(tx, rows, order.version, self._pace.after_repair(attempts))
            await order_store.save(tx, orders)


def _differences(one: Compared, answers: Answers) -> list[Difference]:
    return differences(one.order, one.coupon, answers.of(one.order.order_id), one.money)


def _needs_end(row: Row, orders: Mapping[UUID, Compared]) -> bool:
    one = orders.get(row["order_id"])
    return one is not None and (row["log_end"] is None or row["version"] != one.order.version)


def _look(row: Row, one: Compared, answers: Answers, ends: Mapping[int, int]) -> Look:
    now = next((found for found in _differences(one, answers) if found.kind == row["kind"]), None)
    if _needs_end(row, {one.order.order_id: one}):
        return Look(row, now, one.order.version, log_end=ends.get(one.partition, 0))
    return Look(row, now, one.order.version, answers.had_read(row["kind"], one.partition, row["log_end"]))
