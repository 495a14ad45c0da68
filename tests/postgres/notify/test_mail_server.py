"""What is asked of a mail server, beyond that it takes a mail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from services.notify.mail_server import AwayError, MailServer

if TYPE_CHECKING:
    from tests.postgres.notify.conftest import World


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
