"""The sandbox mail server, spoken to by SMTP and asked over HTTP, on real ports."""

import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiosmtplib
import httpx2
import pytest

from deploy.local.mail.__main__ import assemble
from deploy.local.mail.behaviour import Behaviour, Settings
from tests.support.http import listening
from tests.unit.local.outside import healthy, merchant, process


@dataclass
class Post:
    """The server as its user has it: an address by SMTP, and a page to look at."""

    http: httpx2.AsyncClient
    port: int

    async def send(self, mail: EmailMessage) -> tuple[dict[str, Any], str]:
        return await aiosmtplib.send(mail, hostname="127.0.0.1", port=self.port, timeout=5)

    async def came(self, **params: str) -> list[dict[str, Any]]:
        return (await self.http.get("/messages", params=params)).json()["data"]

    async def behave(self, **changes: Any) -> None:
        (await self.http.put("/sandbox/behaviour", json=changes)).raise_for_status()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@asynccontextmanager
async def post(path: Path, **behaviour: Any) -> AsyncGenerator[Post]:
    settings = Settings(database=path / "mail.db", smtp_port=free_port())
    app = assemble(settings, Behaviour.model_validate(behaviour))
    async with listening(app) as url, merchant(url) as client:
        yield Post(client, settings.smtp_port)


def mail(to: str = "anna@ash.example", number: int = 1, html: str = "<p>On its way: RED-LAMP</p>") -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = (
        "Isthmus shop <care@shop.example>",
        to,
        "Your order: Ärger & <b>Glück</b>",
    )
    made["Message-ID"], made["X-Order"] = f"<{number}@shop.example>", "42"
    made.set_content("On its way: RED-LAMP, für Änne")
    made.add_alternative(html, subtype="html")
    return made


async def test_a_mail_arrives_with_its_parts_and_headers(tmp_path: Path) -> None:
    async with post(tmp_path) as office:
        await office.send(mail())
        (came,) = await office.came()
        assert came["message_id"] == "<1@shop.example>"
        assert (came["from"], came["to"]) == ("Isthmus shop <care@shop.example>", ["anna@ash.example"])
        assert came["subject"] == "Your order: Ärger & <b>Glück</b>"
        assert came["text"].strip() == "On its way: RED-LAMP, für Änne"
        assert came["html"].strip() == "<p>On its way: RED-LAMP</p>"
        assert came["headers"]["X-Order"] == "42"
        assert (await office.http.get(f"/messages/{came['id']}")).json() == came
        raw = (await office.http.get(f"/messages/{came['id']}/raw")).text
        assert "Message-ID: <1@shop.example>" in raw
        assert (await office.http.get("/health")).json() == {"status": "ok"}


async def test_headers_that_look_forged_are_flagged_and_the_usual_ones_are_not(tmp_path: Path) -> None:
    async with post(tmp_path) as office:
        made = mail()
        del made["X-Order"]
        made["Auto-Submitted"], made["List-Unsubscribe"] = "auto-generated", "<mailto:care@shop.example>"
        await office.send(made)
        forged = b"Bcc: eve@evil.example\r\nX-Injected: <b>yes\r\nContent-Type: text/html\r\n" + made.as_bytes()
        await aiosmtplib.send(
            forged, sender="care@shop.example", recipients=["anna@ash.example"], hostname="127.0.0.1", port=office.port
        )
        plain, other = await office.came()
        assert plain["warnings"] == []
        assert other["warnings"] == ["Bcc", "Content-Type", "X-Injected"]
        page = (await office.http.get(f"/messages/{other['id']}/page")).text
        assert "Unusual headers" in page
        assert "Unusual headers" not in (await office.http.get(f"/messages/{plain['id']}/page")).text


async def test_mails_are_found_by_recipient_paged_shown_twice_when_sent_twice_and_forgotten(tmp_path: Path) -> None:
    async with post(tmp_path) as office:
        for number, to in enumerate(["anna@ash.example", "ben@birch.example", "Anna@Ash.example"]):
            await office.send(mail(to, number))
        await office.send(mail("ben@birch.example", 1))
        assert [one["message_id"][1] for one in await office.came(to="anna@ash.example")] == ["0", "2"]
        assert [one["message_id"][1] for one in await office.came(to="ben@birch.example")] == ["1", "1"]
        first = (await office.http.get("/messages", params={"limit": 3})).json()
        rest = (await office.http.get("/messages", params={"cursor": first["next_cursor"]})).json()
        assert [one["message_id"][1] for one in first["data"] + rest["data"]] == ["0", "1", "2", "1"]
        assert rest["next_cursor"] is None
        assert (await office.http.delete("/messages")).status_code == 204
        assert await office.came() == []


async def test_a_rejected_address_gets_550_and_the_others_of_the_mail_get_it(tmp_path: Path) -> None:
    async with post(tmp_path, reject=["*@gone.example"]) as office:
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refused:
            await office.send(mail("Ben@Gone.example"))
        assert refused.value.recipients[0].code == 550
        errors, _ = await office.send(mail("anna@ash.example, ben@gone.example"))
        assert list(errors) == ["ben@gone.example"]
        assert [one["to"] for one in await office.came()] == [["anna@ash.example"]]


async def test_a_deferred_mail_is_not_kept_until_its_next_attempt(tmp_path: Path) -> None:
    async with post(tmp_path, defer_rate=1) as office:
        with pytest.raises(aiosmtplib.SMTPDataError) as deferred:
            await office.send(mail())
        assert deferred.value.code == 451
        assert await office.came() == []
        await office.send(mail())
        assert len(await office.came()) == 1


async def test_a_connection_dropped_after_data_leaves_the_mail_and_no_answer(tmp_path: Path) -> None:
    async with post(tmp_path, drop_after_data_rate=1) as office:
        with pytest.raises(aiosmtplib.SMTPServerDisconnected):
            await office.send(mail())
        assert len(await office.came()) == 1
        await office.send(mail())
        assert [one["message_id"] for one in await office.came()] == ["<1@shop.example>"] * 2


async def test_a_closed_server_answers_421_and_opens_again(tmp_path: Path) -> None:
    async with post(tmp_path) as office:
        await office.behave(accepting=False)
        with pytest.raises(aiosmtplib.SMTPConnectError) as closed:
            await office.send(mail())
        assert "421" in str(closed.value)
        await office.behave()
        await office.send(mail())
        assert len(await office.came()) == 1


async def test_a_server_of_its_own_hangs_up_when_it_closes_and_when_it_drops(tmp_path: Path) -> None:
    port = free_port()
    with process("mail", tmp_path, "", SANDBOX_SMTP_PORT=str(port)) as (_, url):
        async with merchant(url) as http:
            await healthy(http)
            office = Post(http, port)
            async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, timeout=5) as client:
                await client.noop()
                await office.behave(accepting=False)
                with pytest.raises(aiosmtplib.SMTPException):
                    await client.noop()
            with pytest.raises(aiosmtplib.SMTPConnectError, match="421"):
                await office.send(mail())
            await office.behave(drop_after_data_rate=1)
            with pytest.raises(aiosmtplib.SMTPServerDisconnected):
                await office.send(mail())


async def test_rates_that_do_not_fit_are_a_problem(tmp_path: Path) -> None:
    async with post(tmp_path, defer_rate=0.6) as office:
        answer = await office.http.put("/sandbox/behaviour", json={"drop_after_data_rate": 0.6})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert (await office.http.get("/sandbox/behaviour")).json()["drop_after_data_rate"] == 0


async def test_what_a_mail_says_cannot_leave_its_frame(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'></iframe><img src=x onerror=alert(2)>"
    async with post(tmp_path) as office:
        made = mail(html=evil)
        made.replace_header("Subject", "<script>alert(3)</script>")
        await office.send(made)
        (came,) = await office.came()
        for path in ("/", f"/messages/{came['id']}/page"):
            answer = await office.http.get(path)
            assert "<script" not in answer.text
            assert "<img" not in answer.text
            assert "&lt;script&gt;alert(3)" in answer.text
            assert "default-src 'none'" in answer.headers["content-security-policy"]
        page = (await office.http.get(f"/messages/{came['id']}/page")).text
        assert '<iframe sandbox srcdoc="&lt;script&gt;' in page
        assert page.count("</iframe>") == 1


async def test_a_mail_that_is_hardly_one_is_shown_all_the_same(tmp_path: Path) -> None:
    raw = b"Subject: \xff\xfe odd\r\nContent-Type: text/plain; charset=klingon\r\n\r\nbytes \xff of no charset\r\n"
    async with post(tmp_path) as office:
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=office.port, timeout=5) as client:
            await client.sendmail("care@shop.example", ["anna@ash.example"], raw)
        (came,) = await office.came()
        assert (came["message_id"], came["from"], came["html"]) == ("", "care@shop.example", None)
        assert came["text"].startswith("bytes ")
        assert "odd" in came["subject"]
        assert (await office.http.get("/")).status_code == 200


async def test_mails_survive_kill_9(tmp_path: Path) -> None:
    port = free_port()
    for known in (0, 1):
        more = {"SANDBOX_SMTP_PORT": str(port), "SANDBOX_REJECT": "*@gone.example, noreply@*"}
        with process("mail", tmp_path, "", **more) as (running, url):
            async with merchant(url) as client:
                await healthy(client)
                office = Post(client, port)
                assert len(await office.came()) == known
                assert (await client.get("/sandbox/behaviour")).json()["reject"] == ["*@gone.example", "noreply@*"]
                await office.send(mail(number=known))
            running.send_signal(signal.SIGKILL)
