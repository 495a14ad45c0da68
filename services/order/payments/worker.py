"""Calls to the provider. Unknown is resolved by look-up, then by asking again with the same key; never by a new key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid5

from services.order import store
from services.order.payments.decisions import PaymentReport, refunded, settle
from services.order.payments.provider import Provider, UnknownOutcomeError
from shared.calls import LEASE_SECONDS, Call, Calls, backoff
from shared.postgres import Database, Row
from shared.telemetry import log

CLAIM_PAYMENTS = """
UPDATE payments SET due_at = now() + $2 * interval '1 second', attempts = attempts + 1
WHERE payment_id IN
      (SELECT payment_id FROM payments WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING payment_id, order_id, token, amount, currency, state, provider_reference, closing, attempts
"""

CLAIM_REFUNDS = """
UPDATE refunds AS r SET due_at = now() + $2 * interval '1 second', attempts = r.attempts + 1
FROM payments p
WHERE p.payment_id = r.payment_id AND p.provider_reference IS NOT NULL AND r.refund_id IN
      (SELECT refund_id FROM refunds WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING r.refund_id, r.order_id, r.amount, p.provider_reference, r.attempts, r.declines
"""

# Also a payment given up while the call was under way: the call may yet have reached the provider.
ASK_PAYMENT_AGAIN = """
UPDATE payments SET due_at = least(now() + $2 * interval '1 second', CASE WHEN closing THEN due_at END)
WHERE payment_id = $1 AND (due_at IS NOT NULL OR state = 'declined')
"""

ASK_REFUND_AGAIN = (
    "UPDATE refunds SET due_at = now() + $2 * interval '1 second' WHERE refund_id = $1 AND due_at IS NOT NULL"
)

REFUND_DECLINED = """
UPDATE refunds SET due_at = now() + $2 * interval '1 second', declines = declines + 1
WHERE refund_id = $1 AND due_at IS NOT NULL
"""


@dataclass(frozen=True)
class Outcome:
    """What came of one call, to be stored: a report of a payment, or a refund that went through."""

    order_id: UUID
    report: PaymentReport | None = None
    refund_id: UUID | None = None


class PaymentCalls:
    """Asks the provider for payments and refunds that are due."""

    def __init__(self, database: Database, provider: Provider):
        self._database = database
        self._provider = provider
        self.calls = Calls[Outcome]("payments", self._claim, lambda outcomes: apply(database, outcomes))

    async def close(self) -> None:
        await self.calls.close()
        await self._provider.close()

    async def _claim(self, room: int) -> Sequence[Call[Outcome]]:
        async with self._database.transaction() as tx:
            payments = await tx.db.fetch(CLAIM_PAYMENTS, room, LEASE_SECONDS)
            refunds = await tx.db.fetch(CLAIM_REFUNDS, room, LEASE_SECONDS)
        return [*(self._ask_payment(row) for row in payments), *(self._ask_refund(row) for row in refunds)]

    async def _ask_payment(self, row: Row) -> Outcome | None:
        payment_id: UUID = row["payment_id"]
        try:
            report = await self._outcome(row)
        except UnknownOutcomeError as unknown:
            log.warning(
                "payment outcome unknown", payment_id=str(payment_id), attempt=row["attempts"], reason=str(unknown)
            )
            await self._again(ASK_PAYMENT_AGAIN, payment_id, row["attempts"])
            return None
        if report.status in ("pending", "requires_action"):
            await self._again(ASK_PAYMENT_AGAIN, payment_id, row["attempts"] + 3)  # the webhook is faster, if it comes
        return Outcome(row["order_id"], report)

    async def _outcome(self, row: Row) -> PaymentReport:
        payment_id: UUID = row["payment_id"]
        if row["attempts"] > 1 or row["closing"]:
            found = await self._provider.look_up(payment_id)
            if found is not None:
                if row["closing"] and found.status in ("pending", "requires_action") and found.provider_reference:
                    return await self._provider.void(payment_id, found.provider_reference)
                return found
            if row["closing"]:  # it never got there; should it still arrive, a capture after the end is refunded
                return PaymentReport("cancelled", row["amount"], reason="closed before the provider knew it")
        return await self._provider.charge(payment_id, row["token"] or "", row["amount"], row["currency"])

    async def _ask_refund(self, row: Row) -> Outcome | None:
        refund_id: UUID = row["refund_id"]
        amount: Decimal = row["amount"]
        # A no is final for its key: asked again with the same one, the provider would repeat it for ever.
        key = uuid5(refund_id, f"after/{row['declines']}") if row["declines"] else refund_id
        try:
            done = await self._provider.refund(refund_id, key, row["provider_reference"], amount)
        except UnknownOutcomeError as unknown:
            log.warning(
                "refund outcome unknown", refund_id=str(refund_id), attempt=row["attempts"], reason=str(unknown)
            )
            await self._again(ASK_REFUND_AGAIN, refund_id, row["attempts"])
            return None
        if done:
            return Outcome(row["order_id"], refund_id=refund_id)
        log.error("refund declined; tried again later", refund_id=str(refund_id), declines=row["declines"] + 1)
        await self._again(REFUND_DECLINED, refund_id, row["attempts"])
        return None

    async def _again(self, query: str, id_: UUID, attempts: int) -> None:
        async with self._database.transaction() as tx:
            await tx.db.execute(query, id_, backoff(attempts))


async def apply(database: Database, outcomes: list[Outcome]) -> None:
    """Let orders go on from what their payments came to. The same word twice, by call and by webhook, is one cause."""
    async with database.transaction() as tx:
        orders = await store.load(tx, [outcome.order_id for outcome in outcomes])
        now = datetime.now(UTC)
        for outcome in outcomes:
            order = orders.by_id[outcome.order_id]
            if outcome.report is not None:
                before = replace(order.payment) if order.payment else None
                events = settle(order, outcome.report, now)
                said = f"payment/{outcome.report.status}"
                # No news of one that is given up: saved nevertheless, or a call that was overtaken is made for ever.
                if order.payment != before or (before and before.state == "declined"):
                    orders.heard.add(order.order_id)
            else:
                assert outcome.refund_id is not None
                events = refunded(order, outcome.refund_id, now)
                said = f"refund/{outcome.refund_id}"
            orders.happen(tx, order, events, orders.cause(order.order_id, said), now)
        await store.save(tx, orders)
