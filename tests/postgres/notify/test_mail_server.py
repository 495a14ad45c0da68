"""What is asked of a mail server, beyond that it takes a mail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from services.notify import mail_server
from services.notify.mail_server import AwayError, MailServer, RefusedError, UnknownError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.postgres.notify.conftest import World


@pytest.fixture
async def server(world: World) -> AsyncGenerator[MailServer]:
    server = MailServer(f"smtp://127.0.0.1:{world.post.port}", 2)
    yield server
    await server.close()


async def write(server: MailServer) -> None:
    async with server.session() as session:
        await session.address("care@shop.example", "bob@home.example")
        await session.hand_over(b"Subject: hello\r\n\r\nBob\r\n")


async def test_a_password_is_never_sent_in_clear(world: World) -> None:
    server = MailServer(f"smtp://care:secret@127.0.0.1:{world.post.port}", 2)  # it offers no TLS
    with pytest.raises(AwayError) as error:
        async with server.session():
            pytest.fail("was greeted")
    assert "secret" not in str(error.value)


async def test_a_server_that_says_nothing_is_away_after_a_while() -> None:
    async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        started = asyncio.get_running_loop().time()
        with pytest.raises(AwayError):
            async with MailServer(f"smtp://127.0.0.1:{port}", 0.2).session():
                pytest.fail("was greeted")
        assert asyncio.get_running_loop().time() - started < 2


async def test_one_connection_carries_many_mails(world: World) -> None:
    for number in range(1, 4):
        await world.confirmed(number)
        await world.send()
    assert (len(world.post.mails), world.post.connections) == (3, 1)


async def test_a_connection_that_died_in_between_is_replaced(world: World) -> None:
    await world.confirmed()
    await world.send()
    await asyncio.to_thread(world.post.hang_up)
    await world.confirmed(2)
    await world.send()
    assert (len(world.post.mails), world.post.connections) == (2, 2)


async def test_a_connection_that_says_goodbye_is_not_used_again(world: World, server: MailServer) -> None:
    world.post.to_recipient = "421 too many for today"
    with pytest.raises(AwayError, match="421"):
        async with server.session() as session:
            await session.address("care@shop.example", "anna@home.example")
    assert server._kept == {}


@pytest.mark.parametrize("answer", ["550 no such user", "450 later"])
async def test_a_recipient_who_is_refused_does_not_cost_the_connection(
    world: World, server: MailServer, answer: str
) -> None:
    world.post.to_recipient = answer
    for _ in range(2):
        with pytest.raises((AwayError, RefusedError)):
            async with server.session() as session:
                await session.address("care@shop.example", "anna@home.example")
    assert world.post.connections == 1
    world.post.to_recipient = "250 OK"
    await write(server)  # what was left of the refused one is forgotten
    assert (len(world.post.mails), world.post.connections) == (1, 1)


async def test_a_connection_on_which_a_mail_ended_in_doubt_is_not_used_again(world: World, server: MailServer) -> None:
    world.post.to_data = "350 perhaps"
    with pytest.raises(UnknownError):
        await write(server)
    assert server._kept == {}
    world.post.to_data = "250 OK"
    await write(server)
    assert (len(world.post.mails), world.post.connections) == (1, 2)


async def test_an_answer_that_nobody_waited_for_is_nobodys(world: World, server: MailServer) -> None:
    world.post.answers_after = 0.3
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), server.session() as session:
            await session.address("care@shop.example", "anna@home.example")
    assert server._kept == {}
    async with server.session() as session:
        await session.address("care@shop.example", "bob@home.example")
    assert world.post.connections == 2


async def test_no_connection_is_kept_for_long_or_for_too_many_mails(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_server, "KEPT_SECONDS", 0.1)
    monkeypatch.setattr(mail_server, "MESSAGES_PER_SESSION", 2)
    for _ in range(3):
        async with server.session() as session:
            await session.address("care@shop.example", "anna@home.example")
    assert world.post.connections == 2
    async with asyncio.timeout(5):
        while server._kept or server._ending:  # noqa: ASYNC110 - it signals nobody
            await asyncio.sleep(0.02)


async def test_many_who_ask_whether_it_is_there_are_one_greeting(world: World, server: MailServer) -> None:
    await asyncio.gather(*(server.answers() for _ in range(20)))
    await server.answers()
    assert world.post.connections == 1
    await server.close()
    assert server._kept == {}


async def test_a_server_that_is_away_is_away_for_all_who_ask(server: MailServer, world: World) -> None:
    await asyncio.to_thread(world.post.close)
    said = await asyncio.gather(*(server.answers() for _ in range(20)), return_exceptions=True)
    assert {type(one) for one in said} == {AwayError}
    await asyncio.to_thread(world.post.open)
    await server.answers()
