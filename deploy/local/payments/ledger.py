"""What is stored: payments, refunds, and the answers given to idempotency keys.

Every method is one transaction and never awaits, so in this single-threaded server each is atomic: of two requests with
one idempotency key, the second always finds the first one's answer.
"""

import sqlite3
import time
from uuid import uuid4

import orjson

from deploy.local.sandbox.answers import Answers, fingerprint
from deploy.local.sandbox.database import Database
from deploy.local.sandbox.money import to_minor, to_text
from deploy.local.sandbox.outbox import Outbox
from deploy.local.sandbox.pages import Page, next_cursor, text_of
from deploy.local.sandbox.problems import ProblemError

from .behaviour import Behaviour, Plan
from .models import Payment, PaymentRequest, Refund, RefundRequest

FINAL = {"captured", "declined", "cancelled"}


class Ledger:
    """The provider's truth. Whatever becomes final queues its webhook in the same transaction."""

    def __init__(self, database: Database, outbox: Outbox, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self._database, self._outbox, self._answers = database, outbox, Answers(database)

    def lose(self, key: str) -> bool:
        """True for the first attempt with this key, which is then to leave no other trace."""
        return self._database.execute("INSERT OR IGNORE INTO lost VALUES (?)", key) == 1

    def pay(self, key: str, request: PaymentRequest, plan: Plan) -> tuple[Payment, bool]:
        """Return the key's payment as it is now, and whether it is new. Raises ProblemError 422 on another body."""
        amount = to_minor(request.amount, request.currency)
        request_print = fingerprint("payment", amount, request.currency, request.token, request.reference)
        with self._database.transaction():
            if known := self._answers.known(key, request_print):
                return self.payment(known), False
            payment_id = f"pay_{uuid4().hex}"
            self._database.execute(
                "INSERT INTO payments (id, reference, amount, currency, token, status, decline_code, created_at,"
                " settle_at, settle_to) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *(payment_id, request.reference, amount, request.currency, request.token),
                *(plan.status, plan.decline_code, text_of(time.time())),
                *(time.time() + self.behaviour.slow_seconds if plan.then else None, plan.then),
            )
            self._answers.add(key, request_print, payment_id)
            return self._announced(payment_id), True

    def payment(self, payment_id: str) -> Payment:
        """Raises ProblemError 404."""
        return _payment(self._row(payment_id))

    def payments(self, cursor: int, limit: int, reference: str | None = None) -> Page[Payment]:
        """Return payments after the cursor in the order they were recorded; all, or those of one reference."""
        if reference is None:
            sql = "SELECT * FROM payments WHERE seq > ? ORDER BY seq LIMIT ?"
            rows = self._database.rows(sql, cursor, limit + 1)
        else:
            sql = "SELECT * FROM payments WHERE seq > ? AND reference = ? ORDER BY seq LIMIT ?"
            rows = self._database.rows(sql, cursor, reference, limit + 1)
        return Page(data=[_payment(row) for row in rows[:limit]], next_cursor=next_cursor(rows, limit))

    def finish_action(self, payment_id: str, success: bool) -> Payment:
        """End a redirect. The same outcome twice changes nothing; another one after the end is a ProblemError 409."""
        wanted = "captured" if success else "declined"
        with self._database.transaction():
            row = self._row(payment_id)
            if row["status"] == "requires_action":
                return self._end(payment_id, wanted, None if success else "authentication_failed")
            if row["status"] != wanted or row["token"] != "tok_3ds":
                raise ProblemError(409, "No action is awaited", f"the payment is {row['status']}")
            return _payment(row)

    def void(self, payment_id: str) -> Payment:
        """Cancel what is not final. Again: the same answer. Raises ProblemError 409 once captured or declined."""
        with self._database.transaction():
            row = self._row(payment_id)
            if row["status"] in ("captured", "declined"):
                raise ProblemError(409, "Too late to void", f"the payment is {row['status']}")
            return _payment(row) if row["status"] == "cancelled" else self._end(payment_id, "cancelled", None)

    def settle_due(self) -> None:
        """End the pending payments whose time has come."""
        sql = "SELECT id, settle_to FROM payments WHERE settle_at <= ? ORDER BY settle_at"
        if due := self._database.rows(sql, time.time()):
            with self._database.transaction():
                for payment_id, status in due:
                    self._end(payment_id, status, "declined" if status == "declined" else None)

    def refund(self, key: str, payment_id: str, request: RefundRequest) -> tuple[Refund, bool]:
        """Return the key's refund and whether it is new; never above what was captured (ProblemError 422)."""
        with self._database.transaction():
            payment = self._row(payment_id)
            currency = payment["currency"]
            amount = to_minor(request.amount, currency)
            request_print = fingerprint("refund", payment_id, amount, request.reference)
            if known := self._answers.known(key, request_print):
                return self._refund(known), False
            left = payment["amount"] - payment["refunded"] if payment["status"] == "captured" else 0
            if amount > left:
                raise ProblemError(
                    422, "Above what is refundable", f"{to_text(left, currency)} {currency} can be refunded"
                )
            status = "declined" if self.behaviour.refund_declined(request.reference) else "succeeded"
            refund_id = f"re_{uuid4().hex}"
            self._database.execute(
                "INSERT INTO refunds (id, payment_id, reference, amount, currency, status, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                *(refund_id, payment_id, request.reference, amount, currency, status, text_of(time.time())),
            )
            if status == "succeeded":
                self._database.execute("UPDATE payments SET refunded = refunded + ? WHERE id = ?", amount, payment_id)
            self._answers.add(key, request_print, refund_id)
            refund = self._refund(refund_id)
            self._announce(f"refund.{status}", refund)
            return refund, True

    def refunds(self, cursor: int, limit: int) -> Page[Refund]:
        """Return refunds after the cursor in the order they were recorded."""
        rows = self._database.rows("SELECT * FROM refunds WHERE seq > ? ORDER BY seq LIMIT ?", cursor, limit + 1)
        return Page(data=[_refund(row) for row in rows[:limit]], next_cursor=next_cursor(rows, limit))

    def _end(self, payment_id: str, status: str, decline_code: str | None) -> Payment:
        self._database.execute(
            "UPDATE payments SET status = ?, decline_code = ?, settle_at = NULL, settle_to = NULL WHERE id = ?",
            *(status, decline_code, payment_id),
        )
        return self._announced(payment_id)

    def _announced(self, payment_id: str) -> Payment:
        payment = self.payment(payment_id)
        if payment.status in FINAL:
            self._announce(f"payment.{payment.status}", payment)
        return payment

    def _announce(self, kind: str, about: Payment | Refund) -> None:
        body = orjson.dumps({"type": kind, "timestamp": text_of(time.time()), "data": about.model_dump()}).decode()
        self._outbox.add(body, self.behaviour.deliveries(kind, about.reference))

    def _row(self, payment_id: str) -> sqlite3.Row:
        row = self._database.row("SELECT * FROM payments WHERE id = ?", payment_id)
        if row is None:
            raise ProblemError(404, "No such payment", f"there is no payment {payment_id!r}")
        return row

    def _refund(self, refund_id: str) -> Refund:
        return _refund(self._database.rows("SELECT * FROM refunds WHERE id = ?", refund_id)[0])


def _payment(row: sqlite3.Row) -> Payment:
    amounts = {name: to_text(row[name], row["currency"]) for name in ("amount", "refunded")}
    fee = to_text(_fee(row["amount"]) if row["status"] == "captured" else 0, row["currency"])
    return Payment.model_validate({**dict(row), **amounts, "fee": fee})


def _fee(amount: int) -> int:
    """1.4 % and 20 minor units, in minor units; never more than was captured."""
    return min(amount, amount * 14 // 1000 + 20)


def _refund(row: sqlite3.Row) -> Refund:
    return Refund.model_validate({**dict(row), "amount": to_text(row["amount"], row["currency"])})
