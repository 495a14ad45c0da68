"""Mails: text and HTML from templates, and headers into which no name or address can break."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from services.notify.addresses import one_line
from services.notify.decisions import MARKETING

# What a customer is told of a refusal; the codes are those of OrderRejected, of the customer and pricing services too.
REASONS = {
    "stock": "we do not have enough of it in stock at the moment",
    "price_differs": "the price had changed since you saw it, and we did not want to charge you another amount",
    "quote_differs": "the order differed from the quote that you had been given",
    "quote_expired": "the quote that you had been given was no longer valid",
    "quote_unknown": "we could not find the quote that it named",
    "quote_used": "the quote that you had been given was used for another order",
    "coupon_unknown": "we do not know the coupon code that you entered",
    "coupon_not_valid": "your coupon is not valid for this order",
    "coupon_minimum": "your coupon needs a larger order",
    "coupon_used_up": "your coupon has already been used as often as it can be",
    "points": "you did not have enough points left for it",
    "points_exceed_total": "it would have used more points than it was worth",
    "no_price": "we could not offer one of the products at the moment",
    "payment_declined": "your payment was declined",
    "payment_amount_differs": "the amount that reached us was not the amount of the order; it is paid back to you",
}
UNSAID = "something about it did not work on our side"
LISTED = 12  # products; of a longer order the others are counted


@dataclass(frozen=True)
class Telling:
    """What a mail says: whom it greets, which order it is about, products by name, and the facts of its event."""

    order_id: UUID
    trigger: str
    name: str | None
    reference: str | None
    reason: str | None
    products: Sequence[str]
    related: str | None
    facts: Mapping[str, Any]


def environment() -> Environment:
    """HTML is escaped, and a name that a template asks for in vain is an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


class Letters:
    """Writes the mails of one sender, as in ``Customer care <care@shop.example>``."""

    def __init__(self, sender: str):
        name, address = parseaddr(sender)
        self.sender = Address(display_name=name, addr_spec=address)
        self._templates = environment()

    def write(self, telling: Telling, to: str, at: datetime) -> bytes:
        """The mail as it goes over the wire, to this address and nobody else. Its Message-ID is the same whenever it
        is written, so that a repeat could be recognised.

        The email package stumbles over some names in its own ways; then the mail does without name and number.
        Raises ValueError when it does not become what it should even so.
        """
        try:
            return self._content(telling, to, at)
        except Exception:  # also of templates, which then fail again
            return self._content(replace(telling, name=None, reference=None), to, at)

    def _content(self, telling: Telling, to: str, at: datetime) -> bytes:
        mail = self._mail(telling, to, at)
        content = mail.as_bytes(policy=SMTP)
        check(content, mail, to)
        return content

    def _mail(self, telling: Telling, to: str, at: datetime) -> EmailMessage:
        words = self._words(telling)
        # the first line of a text template is the subject
        subject, _, text = self._templates.get_template(f"{telling.trigger}.txt").render(words).partition("\n")
        mail = EmailMessage()
        mail["From"] = self.sender
        mail["To"] = Address(display_name=words["name"] or "", addr_spec=to)
        mail["Subject"] = one_line(subject)
        mail["Date"] = format_datetime(at)
        mail["Message-ID"] = f"<{telling.order_id}.{telling.trigger}@{self.sender.domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        if telling.trigger in MARKETING:
            mail["List-Unsubscribe"] = f"<mailto:{self.sender.addr_spec}?subject=unsubscribe>"
        mail.set_content(text.strip() + "\n", cte="quoted-printable")
        html = self._templates.get_template(f"{telling.trigger}.html").render(words, subject=one_line(subject))
        mail.add_alternative(html, subtype="html", cte="quoted-printable")
        return mail

    def _words(self, telling: Telling) -> dict[str, Any]:
        promised = telling.facts.get("promised_at")
        listed = [one_line(product) for product in telling.products[:LISTED]]
        return {
            "name": one_line(telling.name or "") or None,
            "reference": one_line(telling.reference or "") or None,
            "products": listed,
            "others": len(telling.products) - len(listed),
            "related": one_line(telling.related or "") or None,
            "reason": REASONS.get(telling.reason or "", UNSAID),
            "total": _amount(telling.facts),
            "promised": _moment(datetime.fromisoformat(promised)) if promised else None,
            "address": self.sender.addr_spec,
            "sender": self.sender.display_name or self.sender.addr_spec,
        }


def check(content: bytes, meant: EmailMessage, to: str) -> None:
    """Read a mail back as its recipient will: the headers that were meant, each once, no other recipient, no other
    part. Raises ValueError."""
    read = message_from_bytes(content)  # its headers as they stand: to take each of them apart costs more than the rest
    if sorted(read.keys()) != sorted({*meant.keys()}):
        raise ValueError("other headers than were meant")
    if [address.addr_spec for address in SMTP.header_factory("To", "".join(read["To"].splitlines())).addresses] != [to]:
        raise ValueError("another recipient than was meant")
    if [part.get_content_type() for part in read.walk()] != [part.get_content_type() for part in meant.walk()]:
        raise ValueError("other parts than were meant")


def _amount(facts: Mapping[str, Any]) -> str | None:
    return f"{facts['total']} {facts['currency']}" if "total" in facts else None


def _moment(at: datetime) -> str:
    at = at.astimezone(UTC)
    return f"{at:%A}, {at.day} {at:%B %Y, %H:%M} UTC"
