"""What is stored: every mail as it came, read with the standard library's email package when it is shown."""

import json
import sqlite3
import time
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from uuid import uuid4

from pydantic import BaseModel, Field

from deploy.local.sandbox.database import Database
from deploy.local.sandbox.pages import Page, next_cursor, text_of
from deploy.local.sandbox.problems import ProblemError

# Of RFC 5322, of MIME, and of mail that a machine sends; in lower case. Not Bcc: nobody who gets a mail may see one.
USUAL = frozenset({
    "from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id", "in-reply-to", "references", "received",
    "return-path", "mime-version", "content-type", "content-transfer-encoding", "content-language", "auto-submitted",
    "list-unsubscribe", "list-unsubscribe-post", "list-id", "dkim-signature",
})  # fmt: skip
OFTEN = frozenset({"received", "dkim-signature"})  # may come several times


class Mail(BaseModel):
    id: str
    message_id: str
    sender: str = Field(serialization_alias="from", description="the header; the envelope's sender where it is missing")
    to: list[str] = Field(description="the recipients of the envelope")
    subject: str
    text: str | None
    html: str | None
    headers: dict[str, str] = Field(description="one that comes several times: line by line")
    warnings: list[str] = Field(description="headers that look forged: of no usual name, or there more than once")
    received_at: str


class Mailbox:
    """Every method is one transaction and never awaits, so in this single-threaded server each is atomic."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, sender: str, recipients: list[str], raw: bytes) -> None:
        self._database.execute(
            "INSERT INTO messages (id, message_id, sender, recipients, received_at, raw) VALUES (?, ?, ?, ?, ?, ?)",
            *(f"mail_{uuid4().hex}", message_id_of(raw), sender, json.dumps(recipients), text_of(time.time()), raw),
        )

    def hinder(self, message_id: str) -> bool:
        """True for the first time that this mail is hindered."""
        return self._database.execute("INSERT OR IGNORE INTO hindered VALUES (?)", message_id) == 1

    def mails(self, cursor: int, limit: int, to: str | None = None) -> Page[Mail]:
        """Return mails after the cursor in the order they came; all, or those to one address."""
        if to is None:
            sql = "SELECT * FROM messages WHERE seq > ? ORDER BY seq LIMIT ?"
            rows = self._database.rows(sql, cursor, limit + 1)
        else:
            sql = (
                "SELECT * FROM messages WHERE seq > ? AND EXISTS (SELECT 1 FROM json_each(recipients)"
                " WHERE lower(value) = lower(?)) ORDER BY seq LIMIT ?"
            )
            rows = self._database.rows(sql, cursor, to, limit + 1)
        return Page(data=[_mail(row) for row in rows[:limit]], next_cursor=next_cursor(rows, limit))

    def latest(self, limit: int) -> list[Mail]:
        return [_mail(row) for row in self._database.rows("SELECT * FROM messages ORDER BY seq DESC LIMIT ?", limit)]

    def mail(self, mail_id: str) -> Mail:
        """Raises ProblemError 404."""
        return _mail(self._row(mail_id))

    def raw(self, mail_id: str) -> bytes:
        """Raises ProblemError 404."""
        return self._row(mail_id)["raw"]

    def clear(self) -> None:
        with self._database.transaction():
            self._database.execute("DELETE FROM messages")
            self._database.execute("DELETE FROM hindered")

    def _row(self, mail_id: str) -> sqlite3.Row:
        row = self._database.row("SELECT * FROM messages WHERE id = ?", mail_id)
        if row is None:
            raise ProblemError(404, "No such mail", f"there is no mail {mail_id!r}")
        return row


def message_id_of(raw: bytes) -> str:
    """Return the Message-ID header, empty where there is none."""
    return _writable(str(BytesHeaderParser(policy=policy.default).parsebytes(raw).get("message-id", ""))).strip()


def _mail(row: sqlite3.Row) -> Mail:
    parsed = message_from_bytes(row["raw"], policy=policy.default)
    headers: dict[str, str] = {}
    for name, value in parsed.items():
        known = f"{headers[name]}\n" if name in headers else ""
        headers[name] = known + _writable(str(value))
    return Mail(
        id=row["id"],
        message_id=row["message_id"],
        sender=_writable(str(parsed.get("from", row["sender"]))),
        to=json.loads(row["recipients"]),
        subject=_writable(str(parsed.get("subject", ""))),
        text=_body(parsed, "plain"),
        html=_body(parsed, "html"),
        headers=headers,
        warnings=_forged(parsed),
        received_at=row["received_at"],
    )


def _forged(parsed: EmailMessage) -> list[str]:
    names = [name.lower() for name in parsed]
    return sorted({
        name for name in parsed
        if name.lower() not in USUAL or (names.count(name.lower()) > 1 and name.lower() not in OFTEN)
    })  # fmt: skip


def _body(parsed: EmailMessage, kind: str) -> str | None:
    part = parsed.get_body((kind,))
    if part is None:
        return None
    try:
        content = part.get_content()
    except (LookupError, UnicodeError):  # of no encoding that Python knows
        content = part.get_payload(decode=True)
    return content.decode(errors="replace") if isinstance(content, bytes) else _writable(str(content))


def _writable(text: str) -> str:
    """Bytes that are no text came in as lone surrogates, which JSON cannot carry."""
    return text.encode(errors="replace").decode()
