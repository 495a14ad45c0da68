"""What buyers write as their names and addresses, over SMTP: none of it becomes part of the mail's structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.postgres.notify.conftest import confirmed, placed

if TYPE_CHECKING:
    from tests.postgres.notify.conftest import World

HEADERS = {
    "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
}  # fmt: skip
ADDED_BY_OUR_TEST_SERVER = {"X-Peer", "X-MailFrom", "X-RcptTo"}
BCC = "=?utf-8?q?x=0D=0ABcc:_eve=40evil.example=0D=0AContent-Type:_text/html=0D=0A=0D=0A=3Ch1=3EYou_owe_us=3C/h1=3E?="
BODY = "=?utf-8?b?QQ0KDQpZb3VyIGFjY291bnQgaXMgbG9ja2Vk?="


@pytest.mark.parametrize(
    "name", [BCC, BODY, f"Ann {BCC}", f'"{BCC}"', "=?utf-8?b?DQpCY2M6?=<", "Müller, (Firma) x", '"<eve@evil.example>',
             "Anna\r\nBcc: eve@evil.example", "漢字 (カ", "=" + BCC],
)  # fmt: skip
async def test_no_name_adds_a_header_a_recipient_or_a_body(world: World, name: str) -> None:
    world.customers.contact = {"name": name, "email": "anna@home.example", "allowed": True}
    await world.confirmed()
    await world.send()
    (mail,) = world.post.mails
    assert {*mail.keys()} - ADDED_BY_OUR_TEST_SERVER == HEADERS
    assert len(mail.keys()) == len({*mail.keys()})
    assert [one.addr_spec for one in mail["To"].addresses] == ["anna@home.example"]
    assert [part.get_content_type() for part in mail.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert await world.care() == {"order_confirmed": ("sent", None)}


async def test_no_order_number_adds_a_header_or_a_body(world: World) -> None:
    await world.hear(placed(1, external_reference=BCC), confirmed(1))
    await world.send()
    (mail,) = world.post.mails
    assert {*mail.keys()} - ADDED_BY_OUR_TEST_SERVER == HEADERS
    assert [part.get_content_type() for part in mail.walk()] == ["multipart/alternative", "text/plain", "text/html"]


@pytest.mark.parametrize(
    "email", ["=?utf-8?q?x=0D=0ABcc=3A_eve=40evil.example?=@home.example", "=?utf-8?q?a?=@home.example",
              "änna@home.example", "a..b@home.example", ".a@home.example", "a" * 65 + "@home.example",
              "anna@127.0.0.1", "anna@ho_me.example", "anna@-home.example", "anna@xn--a.example"],
)  # fmt: skip
async def test_what_is_not_plainly_an_address_is_not_written_to(world: World, email: str) -> None:
    world.customers.contact = {"name": "Anna", "email": email, "allowed": True}
    await world.confirmed()
    await world.send()
    assert (await world.care(), world.post.mails) == ({"order_confirmed": ("failed", "no_address")}, [])


def greeting(world: World) -> str:
    body = world.post.mails[0].get_body(("plain",))
    assert body is not None
    return body.get_content().splitlines()[0]


@pytest.mark.parametrize(
    "name", ["Win at https://evil.example/x", "Visit www.evil", "Call evil.example", "eve.example now", "A" * 61],
)  # fmt: skip
async def test_nobody_is_greeted_with_an_advertisement(world: World, name: str) -> None:
    world.customers.contact = {"name": name, "email": "anna@home.example", "allowed": True}
    await world.confirmed()
    await world.send()
    assert str(world.post.mails[0]["To"]) == "anna@home.example"
    assert greeting(world) == "Hello,"


@pytest.mark.parametrize("name", ["A. W.", "Dr. Jörg Müller", "Anna Öz Jr.", "J.R. Smith", "A" * 60])
async def test_a_name_with_dots_is_still_a_name(world: World, name: str) -> None:
    world.customers.contact = {"name": name, "email": "anna@home.example", "allowed": True}
    await world.confirmed()
    await world.send()
    assert greeting(world) == f"Dear {name},"


async def test_a_domain_is_written_as_of_today_and_not_as_of_2003(world: World) -> None:
    for number, domain in enumerate(["faß.de", "BÜCHER.example", "xn--fa-hia.de"], 1):
        world.customers.contact = {"name": "Anna", "email": f"anna@{domain}", "allowed": True}
        await world.confirmed(number)
        await world.send()
    assert [mail["To"].addresses[0].domain for mail in world.post.mails] == [
        "xn--fa-hia.de", "xn--bcher-kva.example", "xn--fa-hia.de",
    ]  # fmt: skip
