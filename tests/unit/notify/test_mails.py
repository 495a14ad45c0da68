"""What mails look like, and what cannot break into them."""

import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.notify.addresses import greeted, recipient
from services.notify.mails import REASONS, UNSAID, Letters, Telling, check, environment
from services.notify.settings import NotifySettings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LETTERS = Letters("Customer care <care@shop.example>")
FACTS: dict[str, dict[str, Any]] = {
    "order_confirmed": {"total": "20.00", "currency": "EUR"}, "order_refused": {}, "order_expired": {},
    "order_cancelled": {}, "parcel_late": {"promised_at": "2026-03-03T14:30:00+01:00"},
    "parcel_lost": {"skus": ["RED-LAMP"]}, "parcel_undeliverable": {}, "thank_you": {},
}  # fmt: skip
TRIGGERS = sorted(FACTS)


def wire(trigger: str, **changes: Any) -> bytes:
    telling: dict[str, Any] = {
        "order_id": UUID(int=1), "trigger": trigger, "name": "Anna Öz", "reference": "1001", "reason": None,
        "products": ["Red lamp"], "related": None, "facts": FACTS[trigger],
    } | changes  # fmt: skip
    return LETTERS.write(Telling(**telling), "anna@home.example", NOW)


def mail(trigger: str, **changes: Any) -> EmailMessage:
    return message_from_bytes(wire(trigger, **changes), policy=default)


def part(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    return body.get_content().replace("\r\n", "\n")


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_every_trigger_has_a_mail_of_text_and_html(trigger: str) -> None:
    message = mail(trigger)
    assert message.get_content_type() == "multipart/alternative"
    for kind in ("plain", "html"):
        assert "Dear Anna Öz," in part(message, kind)
        assert "1001" in part(message, kind)
        assert "Customer care" in part(message, kind)
    assert str(message["From"]) == "Customer care <care@shop.example>"
    assert str(message["To"]) == "Anna Öz <anna@home.example>"
    assert "1001" in message["Subject"]
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"] == "Sun, 01 Mar 2026 12:00:00 +0000"
    assert message["Message-ID"].strip() == f"<{UUID(int=1)}.{trigger}@shop.example>"
    assert ("List-Unsubscribe" in message) == (trigger == "thank_you")
    assert wire(trigger).isascii()  # whatever server is on the way


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_a_mail_to_somebody_without_a_name_about_an_order_without_a_number(trigger: str) -> None:
    message = mail(trigger, name=None, reference=None, products=[])
    assert part(message, "plain").startswith("Hello,\n\n")
    assert "None" not in message.as_string()


def test_templates_come_in_pairs_for_every_trigger() -> None:
    names = environment().list_templates()
    bases = {"base", "products"}
    assert {re.sub(r"\.(txt|html)$", "", name) for name in names} == bases | set(TRIGGERS)
    assert len(names) == 2 * len(bases | set(TRIGGERS))


HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]
BCC = "=?utf-8?q?x=0D=0ABcc:_eve=40evil.example=0D=0AContent-Type:_text/html=0D=0A=0D=0A=3Ch1=3EYou_owe_us=3C/h1=3E?="
PIECES = st.sampled_from([
    "=?", "?=", "=", "?", "=?utf-8?q?", "=?utf-8?b?DQpCY2M6?=", "=0D=0A", "\r\n", "\n\n", "Bcc: eve@evil.example",
    "<", ">", '"', "\\", "(", ")", ",", ";", ":", "@", "\x00", "\u2028", "\u202e", "ß", "漢", " " * 80, "x" * 80,
])  # fmt: skip
WRITTEN = st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join)


@given(name=WRITTEN, reference=WRITTEN)
@example(BCC, "1001")
@example("Anna", BCC)
@example("=" + BCC, "=?utf-8?b?DQpCY2M6?=<")
@example("Anna\r\nBcc: eve@evil.example", "1\n\nbody")
@example('"<eve@evil.example>', '"<eve@evil.example>')
def test_no_name_or_number_breaks_out_of_its_header(name: str, reference: str) -> None:
    message = mail("order_confirmed", name=name, reference=reference, products=[name], related=reference)
    assert sorted(message.keys()) == sorted(HEADERS)
    assert [address.addr_spec for address in message["To"].addresses] == ["anna@home.example"]
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]


def test_a_mail_that_reads_otherwise_than_meant_is_refused() -> None:
    content, meant = wire("order_confirmed"), mail("order_confirmed")
    check(content, meant, "anna@home.example")
    for forged in (
        b"Bcc: eve@evil.example\r\n" + content, b"To: eve@evil.example\r\n" + content,
        content.replace(b"Subject:", b"X-Subject:"), content.replace(b"<anna@home", b"<eve@evil.example>, <anna@home"),
        content.replace(b"text/plain", b"text/html"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="meant"):
            check(forged, meant, "anna@home.example")


@given(WRITTEN)
def test_who_is_greeted_is_no_link(name: str) -> None:
    shown = greeted(name) or ""
    assert "=?" not in shown
    assert "://" not in shown
    assert len(shown) <= 60


def test_html_is_escaped() -> None:
    message = mail("thank_you", name="<b>Anna", reference="<i>", related="Lamp <script>")
    html = part(message, "html")
    assert "&lt;b&gt;Anna" in html
    assert not re.search(r"<(b|i|script)>", html)
    assert "Lamp <script>" in part(message, "plain")


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_a_refusal_is_explained_in_words(reason: str) -> None:
    assert f"because {REASONS[reason]}." in part(mail("order_refused", reason=reason), "plain")


def test_a_reason_without_words_of_its_own_is_not_shown() -> None:
    text = part(mail("order_refused", reason="brand_new_code"), "plain")
    assert f"because {UNSAID}." in text
    assert "brand_new_code" not in text


def test_what_a_mail_says_of_its_order() -> None:
    assert "The total is 20.00 EUR." in part(mail("order_confirmed"), "plain")
    assert "by Tuesday, 3 March 2026, 13:30 UTC" in part(mail("parcel_late"), "plain")
    assert "  - Red lamp\n" in part(mail("parcel_lost"), "plain")
    many = part(mail("order_confirmed", products=[f"Cup {n}" for n in range(20)]), "plain")
    assert "  - Cup 11\n  - and 8 more\n" in many
    assert "like: Blue cup." in part(mail("thank_you", related="Blue cup"), "plain")
    assert "might also like" not in part(mail("thank_you"), "plain")


@pytest.mark.parametrize(
    "email", ["", "n/a", "@home.example", "anna@", "a b@home.example", "anna@home.example\r\nBcc: eve@evil.example",
              "anna@home.example> SIZE=1", "anna@x@y", "anna@home..example\x00", "änna@home.example",
              '"a b"@home.example', "=?utf-8?q?a?=@home.example", ".anna@home.example", "an..na@home.example",
              "anna@home.example.",
              "anna@127.0.0.1", "anna@[127.0.0.1]", "anna@" + "a" * 64, "a" * 65 + "@home.example",
              "anna@" + "home." * 60 + "example", "anna@xn--a.example", "anna@ho_me.example"],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_being_repeated(email: str) -> None:
    with pytest.raises(ValueError, match=r"^not an e-mail address$"):
        recipient(email)


@pytest.mark.parametrize(
    ("written", "meant"),
    [(" anna@bücher.example", "anna@xn--bcher-kva.example"), ("anna@faß.de", "anna@xn--fa-hia.de"),
     ("o'neil+tag@Home.Example", "o'neil+tag@home.example"), ("care@localhost", "care@localhost")],
)  # fmt: skip
def test_an_address_is_written_as_mail_servers_read_it(written: str, meant: str) -> None:
    assert recipient(written) == meant


@pytest.mark.parametrize("wrong", [{"smtp_url": "http://x"}, {"smtp_url": "smtp://:pass-word@"}, {"mail_from": "Care"}])
def test_settings_that_cannot_work_are_refused_without_being_shown(wrong: dict[str, str]) -> None:
    given = {
        "database_url": "x", "kafka_bootstrap_servers": "x", "auth_issuer": "x", "auth_jwks_url": "x",
        "auth_token_url": "x", "client_id": "x", "client_secret": "x", "customer_url": "x",
    }  # fmt: skip
    assert NotifySettings.model_validate(given).rules.mail
    with pytest.raises(ValidationError) as refused:
        NotifySettings.model_validate(given | wrong)
    assert "pass-word" not in str(refused.value)
