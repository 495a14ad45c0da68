"""The provider's log against our payments: walked page by page, looked up again, asked about anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from services.order.payments.decisions import PaymentReport
from services.order.payments.provider import Provider, UnknownOutcomeError
from services.order.reconciliation import store
from services.order.reconciliation.decisions import Difference
from services.order.reconciliation.findings import OF_PAYMENTS, Look, Pace, not_open, weigh
from services.order.reconciliation.store import Suspicion
from services.order.signals import signals
from shared.postgres import Connection, Database, Row, Tx
from shared.telemetry import RECONCILED, log
from shared.work import Worker

LOOKS_AT_ONCE = 50

# `at_rest`: neither the order nor, so, its payment has changed lately.
OURS = """
SELECT p.payment_id, p.order_id, p.captured, p.refunded, o.version,
       o.changed_at <= now() - $1 * interval '1 second' AS at_rest,
       EXISTS (SELECT FROM refunds r WHERE r.payment_id = p.payment_id AND r.state = 'requested') AS refund_open
FROM payments p JOIN orders o USING (order_id) WHERE p.payment_id = ANY($2::uuid[])
"""

SEE = "INSERT INTO payments_seen (payment_id) SELECT * FROM unnest($1::uuid[]) ON CONFLICT DO NOTHING"

# Captured before the pass began, and yet it did not show them.
UNSEEN = """
SELECT p.payment_id, p.order_id, p.captured, p.refunded, o.version, true AS at_rest, false AS refund_open
FROM payments p JOIN orders o USING (order_id)
WHERE p.captured > 0 AND NOT o.prepaid AND o.changed_at < $1
  AND NOT EXISTS (SELECT FROM payments_seen s WHERE s.payment_id = p.payment_id)
LIMIT $2
"""

# What the look-up settles through its events: a capture that we do not have, a refund that we have asked for.
ASK_AGAIN = """
UPDATE payments SET due_at = now(), attempts = greatest(attempts, 1) WHERE payment_id = $1 AND captured = 0
"""
REFUND_AGAIN = "UPDATE refunds SET due_at = now() WHERE payment_id = $1 AND state = 'requested'"


@dataclass(frozen=True)
class Ours:
    """A payment as we have it; ``refund_open``: paying back was asked for, and is not known to be done."""

    payment_id: UUID
    order_id: UUID
    captured: Decimal
    refunded: Decimal
    version: int
    at_rest: bool
    refund_open: bool


def compare(ours: Ours | None, theirs: PaymentReport | None) -> Difference | None:
    """In what the provider differs from us. What only one side knows, or what it would not say twice, is reported."""
    if theirs is None:
        if ours is None or not ours.captured:
            return None
        return Difference("payment_missing", _money(ours.captured, ours.refunded), "unknown there", mendable=False)
    captured = theirs.amount if theirs.status == "captured" else Decimal(0)
    there = _money(captured, theirs.refunded)
    if ours is None:
        return Difference("payment_unknown", "unknown here", there, mendable=False)
    if (ours.captured, ours.refunded) == (captured, theirs.refunded):
        return None
    mendable = ours.refund_open if ours.captured else captured > 0
    return Difference("payment", _money(ours.captured, ours.refunded), there, mendable)


def _money(captured: Decimal, refunded: Decimal) -> str:
    return f"captured {captured:f}, refunded {refunded:f}"


class PaymentReconciler:
    """Walks the provider's log again and again: an old payment may have been refunded yesterday."""

    def __init__(self, database: Database, provider: Provider, pace: Pace):
        self._database, self._provider, self._pace = database, provider, pace
        self.worker = Worker("reconcile payments", self.turn, every=pace.every)

    async def turn(self) -> bool:
        """One page of the log, and what is to be looked at again."""
        try:
            await self._look_again()
            await self._walk()
        except UnknownOutcomeError as error:
            log.warning("the provider's log cannot be read; compared later", reason=str(error))
        return False

    async def _walk(self) -> None:
        async with self._database.transaction() as tx:
            begun = await store.begin(tx, "payments", self._pace.between)
        if begun is None:
            return
        try:
            page, cursor = await self._provider.payments_since(begun["position"] or None)
            found, known = await self._compare(page)
            if cursor is None:
                found += await self._unseen(begun["began_at"], {one.payment_id for one in known})
            new = await not_open(self._database, found)
        except BaseException:
            async with self._database.transaction() as tx:
                await tx.db.execute(store.GIVE_UP, "payments")
            raise
        async with self._database.transaction() as tx:
            await tx.db.execute(SEE, sorted(one.payment_id for one in known if one.captured))
            await store.suspect(tx, new, self._pace.rest)
            await store.go_on(tx, "payments", cursor or "")
        RECONCILED.labels("payments").inc(len(page))

    async def _compare(self, page: Sequence[tuple[str, PaymentReport]]) -> tuple[list[Suspicion], list[Ours]]:
        async with self._database.reading() as db:
            ours = await _ours(db, [id_ for text, _ in page if (id_ := _id(text)) is not None], self._pace.rest)
        found: list[Suspicion] = []
        for reference, theirs in page:
            mine = ours.get(reference)
            if (mine is None or mine.at_rest) and (difference := compare(mine, theirs)) is not None:
                found.append(_suspicion(difference, reference, mine))
        return found, list(ours.values())

    async def _unseen(self, began_at: datetime, shown: set[UUID]) -> list[Suspicion]:
        """Captured payments that a whole pass of the log has not shown."""
        async with self._database.reading() as db:
            rows = [Ours(**row) for row in await db.fetch(UNSEEN, began_at, LOOKS_AT_ONCE)]
        missing = [(one, compare(one, None)) for one in rows if one.payment_id not in shown]
        return [_suspicion(difference, str(one.payment_id), one) for one, difference in missing if difference]

    async def _look_again(self) -> None:
        async with self._database.reading() as db:
            findings = await store.due(db, OF_PAYMENTS, LOOKS_AT_ONCE)
        for finding in findings:
            await self._look(finding)

    async def _look(self, finding: Row) -> None:
        """Both sides as they are now; ours after theirs, so that it was so when they answered."""
        payment_id = _id(finding["subject"])
        theirs = await self._provider.look_up(payment_id) if payment_id else None
        async with self._database.reading() as db:
            ours = (await _ours(db, [payment_id], self._pace.rest)).get(str(payment_id)) if payment_id else None
        async with self._database.transaction() as tx:
            if payment_id is None or (ours is not None and not ours.at_rest):
                # One that is not even an id of ours cannot be looked up: it is reported as it was.
                now = Difference(finding["kind"], finding["expected"], finding["found"], mendable=False)
                if ours is not None:
                    await store.put_off(tx, [finding], self._pace.rest)
                else:
                    await weigh(tx, Look(finding, now, None), self._pace)
                return
            now = compare(ours, theirs)
            same = now is not None and now.kind == finding["kind"]
            if await weigh(tx, Look(finding, now if same else None, ours and ours.version), self._pace):
                await self._ask_again(tx, finding, payment_id)

    async def _ask_again(self, tx: Tx, finding: Row, payment_id: UUID) -> None:
        log.warning("payment is asked about again", payment_id=str(payment_id))
        await tx.db.execute(ASK_AGAIN, payment_id)
        await tx.db.execute(REFUND_AGAIN, payment_id)
        await store.repaired(tx, [finding], finding["version"], self._pace.after_repair(finding["attempts"]))
        tx.after_commit(signals.payments_due)


async def _ours(db: Connection, ids: Sequence[UUID], rest: float) -> dict[str, Ours]:
    """By reference, as it is written at the provider."""
    rows = await db.fetch(OURS, rest, ids) if ids else []
    return {str(row["payment_id"]): Ours(**row) for row in rows}


def _suspicion(difference: Difference, reference: str, ours: Ours | None) -> Suspicion:
    return Suspicion(difference, reference[:200], ours and ours.order_id, ours and ours.version)


def _id(reference: str) -> UUID | None:
    try:
        return UUID(reference)
    except ValueError:
        return None
