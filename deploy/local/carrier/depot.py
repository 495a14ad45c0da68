"""What is stored: parcels, what is still to happen to them, and what the merchant was told.

Every method is one transaction and never awaits, so in this single-threaded server each is atomic: of two requests with
one idempotency key, the second always finds the first one's answer.
"""

import sqlite3
import time
from uuid import uuid4

import orjson

from deploy.local.sandbox.answers import Answers, fingerprint
from deploy.local.sandbox.database import Database
from deploy.local.sandbox.money import to_text
from deploy.local.sandbox.outbox import Outbox
from deploy.local.sandbox.pages import Page, next_cursor, text_of
from deploy.local.sandbox.problems import ProblemError

from .behaviour import Behaviour, price_of
from .models import Kind, NoticeType, Parcel, ParcelRequest, Price, Recipient, Status

RANK: dict[str, int] = {"booked": 0, "collected": 1, "in_transit": 2, "delivered": 3, "lost": 3, "cancelled": 3}
END = 3
AT_ONCE = [0.0]
CLOCK_STEP = 0.002  # seconds: what happens to one parcel happens at different times, as far as they are written


class Depot:
    """The carrier's truth. Whatever happens to a parcel queues its webhook in the same transaction."""

    def __init__(self, database: Database, outbox: Outbox, behaviour: Behaviour, currency: str) -> None:
        self.behaviour = behaviour
        self._database, self._outbox, self._answers = database, outbox, Answers(database)
        self._currency = currency

    def book(self, key: str, request: ParcelRequest, base_url: str) -> tuple[Parcel, bool]:
        """Return the key's parcel as it is now, and whether it is new.

        Raises ProblemError 422 on another body, or where the carrier does not go.
        """
        request_print = fingerprint("parcel", request.model_dump_json(by_alias=True))
        with self._database.transaction():
            if known := self._answers.known(key, request_print):
                return self.parcel(known), False
            if not self.behaviour.serves(request.reference, request.recipient):
                raise ProblemError(422, "Address not served", f"no delivery to {request.recipient.city}")
            parcel_id = self._insert(request, base_url)
            self._answers.add(key, request_print, parcel_id)
            return self.parcel(parcel_id), True

    def parcel(self, parcel_id: str) -> Parcel:
        """Raises ProblemError 404."""
        return _parcel(self._row(parcel_id))

    def parcels(self, cursor: int, limit: int, reference: str | None = None) -> Page[Parcel]:
        """Return parcels after the cursor in the order they were booked; all, or those of one reference."""
        if reference is None:
            sql = "SELECT * FROM parcels WHERE seq > ? ORDER BY seq LIMIT ?"
            rows = self._database.rows(sql, cursor, limit + 1)
        else:
            sql = "SELECT * FROM parcels WHERE seq > ? AND reference = ? ORDER BY seq LIMIT ?"
            rows = self._database.rows(sql, cursor, reference, limit + 1)
        return Page(data=[_parcel(row) for row in rows[:limit]], next_cursor=next_cursor(rows, limit))

    def label(self, parcel_id: str) -> str:
        """Return what is printed on the parcel. Raises ProblemError 404."""
        row = self._row(parcel_id)
        to = Recipient.model_validate_json(row["recipient"])
        place = " ".join(part for part in (to.postal_code, to.city, to.region) if part)
        lines = [row["tracking_number"], f"From: {row['warehouse']}", "", to.name, to.street, place, to.country]
        return "\n".join([*lines, *([to.phone] if to.phone else []), "", f"Reference: {row['reference']}", ""])

    def cancel(self, parcel_id: str) -> Parcel:
        """Cancel what waits to be collected. Again: the same answer. Raises ProblemError 409 once it was collected."""
        with self._database.transaction():
            row = self._row(parcel_id)
            if row["status"] not in ("booked", "cancelled"):
                raise ProblemError(409, "Too late to cancel", f"the parcel is {row['status']}")
            if row["status"] == "booked":
                self._set(row, "cancelled", self._now(row))
            return self.parcel(parcel_id)

    def move(self, parcel_id: str, kind: Kind) -> Parcel:
        """Let this happen now; what it overtakes will not happen. Raises ProblemError 409 when out of order."""
        with self._database.transaction():
            row = self._row(parcel_id)
            if not self._can(row, kind):
                raise ProblemError(409, "Out of order", f"a parcel that is {row['status']} cannot become {kind}")
            self._happen(row, kind)
            return self.parcel(parcel_id)

    def repeat(self, parcel_id: str, notice: NoticeType) -> None:
        """Send again what was told, word for word. Raises ProblemError 409 for what has not happened."""
        sql = "SELECT data FROM notices WHERE parcel_id = ? AND kind = ?"
        with self._database.transaction():
            self._row(parcel_id)
            told = self._database.row(sql, parcel_id, notice.removeprefix("parcel."))
            if told is None:
                raise ProblemError(409, "Nothing to repeat", f"there was no {notice} yet")
            self._send(notice, told["data"], AT_ONCE)

    def move_due(self) -> None:
        """Let happen what is due, unless parcels stay where they are."""
        if not self.behaviour.moves_by_itself:
            return
        now = time.time()
        sql = "SELECT parcel_id, kind FROM moves WHERE due_at <= ? ORDER BY due_at, step"
        if due := self._database.rows(sql, now):
            still_due = "SELECT 1 FROM moves WHERE parcel_id = ? AND kind = ? AND due_at <= ?"
            with self._database.transaction():
                for parcel_id, kind in due:
                    if self._database.row(still_due, parcel_id, kind, now):  # the move before may have put it off
                        self._happen(self._row(parcel_id), kind)

    def _insert(self, request: ParcelRequest, base_url: str) -> str:
        now, number = time.time(), uuid4().hex
        parcel_id = f"par_{number}"
        self._database.execute(
            "INSERT INTO parcels (id, reference, warehouse, recipient, weight, units, status, tracking_number,"
            " label_url, price, currency, created_at, updated_at, promised_at)"
            " VALUES (?, ?, ?, ?, ?, ?, 'booked', ?, ?, ?, ?, ?, ?, ?)",
            *(parcel_id, request.reference, request.warehouse, request.recipient.model_dump_json()),
            *(request.weight, request.units, f"SB{number[:16].upper()}", f"{base_url}v1/parcels/{parcel_id}/label"),
            *(price_of(request.weight), self._currency, now, now, now + self.behaviour.promise_seconds),
        )
        for step, (kind, due_at) in enumerate(self.behaviour.moves(request.reference, now)):
            self._database.execute("INSERT INTO moves VALUES (?, ?, ?, ?)", parcel_id, kind, step, due_at)
        return parcel_id

    def _can(self, row: sqlite3.Row, kind: Kind) -> bool:
        if kind == "delayed":
            return RANK[row["status"]] < END and row["expected_at"] is None
        return RANK[row["status"]] < RANK[kind]

    def _happen(self, row: sqlite3.Row, kind: Kind) -> None:
        at = self._now(row)
        if kind == "delayed":
            self._delay(row, at)
        else:
            self._set(row, kind, at)
        recipient = Recipient.model_validate_json(row["recipient"])
        data = {
            **_parcel(self._row(row["id"])).model_dump(by_alias=True),
            "at": text_of(at),
            "recipient": recipient.model_dump(),
            "signed_by": recipient.name if kind == "delivered" else None,
        }
        text = orjson.dumps(data).decode()
        self._database.execute("INSERT INTO notices VALUES (?, ?, ?)", row["id"], kind, text)
        self._send(f"parcel.{kind}", text, self.behaviour.deliveries(kind, row["reference"]))

    def _set(self, row: sqlite3.Row, status: Status, at: float) -> None:
        """Note the status; what it has overtaken will not happen any more."""
        self._database.execute(
            "UPDATE parcels SET status = ?, updated_at = ?, delivered_at = ? WHERE id = ?",
            *(status, at, at if status == "delivered" else None, row["id"]),
        )
        for (kind,) in self._database.rows("SELECT kind FROM moves WHERE parcel_id = ?", row["id"]):
            if RANK[status] == END or (kind != "delayed" and RANK[kind] <= RANK[status]):
                self._database.execute("DELETE FROM moves WHERE parcel_id = ? AND kind = ?", row["id"], kind)

    def _delay(self, row: sqlite3.Row, at: float) -> None:
        """Put the delivery off: if it is to come by itself, it comes then."""
        expected = max(row["promised_at"], at) + self.behaviour.delay_seconds
        sql = "UPDATE parcels SET expected_at = ?, updated_at = ? WHERE id = ?"
        self._database.execute(sql, expected, at, row["id"])
        self._database.execute("DELETE FROM moves WHERE parcel_id = ? AND kind = 'delayed'", row["id"])
        sql = "UPDATE moves SET due_at = ? WHERE parcel_id = ? AND kind IN ('delivered', 'lost')"
        self._database.execute(sql, expected, row["id"])

    def _now(self, row: sqlite3.Row) -> float:
        return max(time.time(), row["updated_at"] + CLOCK_STEP)

    def _send(self, kind: str, data: str, deliveries: list[float]) -> None:
        head = f'{{"type":"{kind}","timestamp":"{text_of(time.time())}","data":'
        self._outbox.add(f"{head}{data}}}", deliveries)

    def _row(self, parcel_id: str) -> sqlite3.Row:
        row = self._database.row("SELECT * FROM parcels WHERE id = ?", parcel_id)
        if row is None:
            raise ProblemError(404, "No such parcel", f"there is no parcel {parcel_id!r}")
        return row


def _parcel(row: sqlite3.Row) -> Parcel:
    times = {name: row[name] for name in ("created_at", "updated_at", "promised_at", "expected_at", "delivered_at")}
    written = {name: None if at is None else text_of(at) for name, at in times.items()}
    price = Price(amount=to_text(row["price"], row["currency"]), currency=row["currency"])
    return Parcel.model_validate({**dict(row), **written, "price": price})
