"""Proxies that hold back, refuse, delay and lose, on real sockets."""

from __future__ import annotations

import asyncio
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest

from bench.faults.commits import CommitWatch
from bench.faults.proxy import Direction, Proxies, ProxyError
from deploy.local.environment import spare_port

ECHO = "echo"
READY = b"Z\0\0\0\x05I"
COMMITTED = b"C\0\0\0\x0bCOMMIT\0"


class Echo:
    """A server that says everything back, and a proxy in front of it."""

    def __init__(self, proxies: Proxies, port: int, heard: bytearray, guests: list[StreamWriter]):
        self.proxies, self.port, self.heard, self.guests = proxies, port, heard, guests

    async def connect(self) -> tuple[StreamReader, StreamWriter]:
        return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), 2)

    async def says(self, reader: StreamReader, writer: StreamWriter, text: bytes) -> bytes:
        writer.write(text)
        return await asyncio.wait_for(reader.readexactly(len(text)), 5)


@pytest.fixture
async def echo() -> AsyncGenerator[Echo]:
    async with echoing() as opened:
        yield opened


@asynccontextmanager
async def echoing() -> AsyncGenerator[Echo]:
    heard, guests = bytearray(), list[StreamWriter]()

    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        guests.append(writer)
        while data := await reader.read(65536):
            heard.extend(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    target, listen = server.sockets[0].getsockname()[1], spare_port()
    async with server, Proxies({ECHO: (listen, target)}) as proxies:
        yield Echo(proxies, listen, heard, guests)


async def silent(reader: StreamReader) -> bool:
    try:
        return not await asyncio.wait_for(reader.read(1), 0.2)
    except TimeoutError:
        return True


async def test_what_is_sent_arrives_and_is_counted(echo: Echo):
    reader, writer = await echo.connect()
    text = bytes(range(256)) * 20_000  # far more than the buffers on the way hold
    assert await echo.says(reader, writer, text) == text
    stats = (await echo.proxies.stats())[ECHO]
    assert (stats.connections, stats.open, stats.requests, stats.replies) == (1, 2, len(text), len(text))
    writer.close()
    assert await reader.read() == b""


async def test_the_end_of_the_server_reaches_the_client_after_its_last_words():
    async def last_words(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"x" * 3_000_000)
        writer.close()

    server = await asyncio.start_server(last_words, "127.0.0.1", 0)
    listen = spare_port()
    async with server, Proxies({"it": (listen, server.sockets[0].getsockname()[1])}) as proxies:
        await proxies.delay("it", 0.1)
        reader, writer = await asyncio.open_connection("127.0.0.1", listen)
        assert len(await asyncio.wait_for(reader.read(), 5)) == 3_000_000
        writer.close()


@pytest.mark.parametrize("direction", ["requests", "replies", "both"])
async def test_what_is_cut_is_delivered_in_order_when_healed(echo: Echo, direction: Direction):
    reader, writer = await echo.connect()
    await echo.says(reader, writer, b"before")
    await echo.proxies.cut(ECHO, direction)
    pieces = [b"%06d" % number for number in range(5000)]
    for piece in pieces:
        writer.write(piece)
    late_reader, late_writer = await echo.connect()  # accepted, and then nothing
    late_writer.write(b"late")
    assert await silent(reader)
    assert await silent(late_reader)
    assert (bytes(echo.heard) == b"before") is (direction != "replies")
    assert len(echo.guests) == (2 if direction == "replies" else 1)
    await echo.proxies.heal(ECHO)
    assert await asyncio.wait_for(reader.readexactly(30_000), 5) == b"".join(pieces)
    assert await asyncio.wait_for(late_reader.readexactly(4), 5) == b"late"
    for end in (writer, late_writer):
        end.close()


async def test_a_client_that_gave_up_while_it_was_cut_is_heard_when_healed(echo: Echo):
    reader, writer = await echo.connect()
    await echo.says(reader, writer, b"one")
    await echo.proxies.cut(ECHO, "both")
    writer.write(b"two")
    writer.close()
    await asyncio.sleep(0.2)
    assert bytes(echo.heard) == b"one"
    await echo.proxies.heal(ECHO)
    until = time.monotonic() + 5
    while bytes(echo.heard) != b"onetwo" or (await echo.proxies.stats())[ECHO].open:
        assert time.monotonic() < until
        await asyncio.sleep(0.02)


async def test_refused_connections_are_reset_and_come_back_when_healed(echo: Echo):
    reader, writer = await echo.connect()
    await echo.says(reader, writer, b"before")
    await echo.proxies.refuse(ECHO)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 2)
    with pytest.raises(ConnectionRefusedError):
        await echo.connect()
    await echo.proxies.heal(ECHO)
    reader, writer = await echo.connect()
    assert await echo.says(reader, writer, b"after") == b"after"
    writer.close()


async def test_a_delay_is_one_for_each_way(echo: Echo):
    reader, writer = await echo.connect()
    await echo.proxies.delay(ECHO, 0.15)
    begin = time.monotonic()
    writer.write(b"one")
    await asyncio.sleep(0.05)
    await echo.proxies.delay(ECHO, 0)  # what was sent later may not overtake
    assert await echo.says(reader, writer, b"two") == b"one"
    assert 0.14 < time.monotonic() - begin < 1
    assert await reader.readexactly(3) == b"two"
    writer.close()


@pytest.mark.parametrize("delay", [0, 60])
async def test_a_server_that_does_not_read_holds_the_client_back(delay: float):
    over = asyncio.Event()

    async def stand_still(reader: StreamReader, writer: StreamWriter) -> None:
        await over.wait()
        writer.transport.abort()

    server = await asyncio.start_server(stand_still, "127.0.0.1", 0)
    listen = spare_port()
    async with server, Proxies({"it": (listen, server.sockets[0].getsockname()[1])}) as proxies:
        await proxies.delay("it", delay)
        _, writer = await asyncio.open_connection("127.0.0.1", listen)
        writer.write(b"x" * 50_000_000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.5)
        assert 0 < (await proxies.stats())["it"].requests < 20_000_000
        over.set()
        writer.transport.abort()


async def test_a_cut_holds_a_reset_back_too(echo: Echo):
    async def hang_up(reader: StreamReader, writer: StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    listen = spare_port()
    async with server, Proxies({"it": (listen, server.sockets[0].getsockname()[1])}) as proxies:
        await proxies.cut("it", "replies")
        reader, writer = await asyncio.open_connection("127.0.0.1", listen)
        for _ in range(3):  # the proxy finds out, at the latest when it writes to the server
            writer.write(b"hello")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(), 0.1)
        await proxies.heal("it")
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()


async def test_a_target_that_is_not_there_resets(echo: Echo):
    listen = spare_port()
    async with Proxies({"nowhere": (listen, spare_port())}):

        async def ask() -> None:  # it may be reset before it is known to be open
            reader, _ = await asyncio.open_connection("127.0.0.1", listen)
            await asyncio.wait_for(reader.read(), 2)

        with pytest.raises(ConnectionResetError):
            await ask()


async def test_a_taken_port_and_an_unknown_name_are_errors(echo: Echo):
    with pytest.raises(ProxyError, match="in use"):
        async with Proxies({"same": (echo.port, 1)}):
            pass
    with pytest.raises(ProxyError, match="nobody"):
        await echo.proxies.cut("nobody")
    assert (await echo.proxies.stats())[ECHO].connections == 0


def said(kind: bytes, body: bytes) -> bytes:
    return kind + (4 + len(body)).to_bytes(4) + body


@pytest.mark.parametrize("size", range(1, 60))
def test_commits_are_found_however_answers_are_split(size: int):
    answers = [
        b"N" + said(b"R", b"\0\0\0\0") + READY,  # no TLS; signed in
        said(b"C", b"BEGIN\0") + READY,
        said(b"D", COMMITTED + READY + COMMITTED) + said(b"C", b"SELECT 1\0") + READY,  # a row that looks like them
        COMMITTED + READY,
        said(b"C", b"ROLLBACK\0") + READY,
        said(b"C", b"INSERT\0") + said(b"N", b"notice") + COMMITTED + READY,
    ]
    watch = CommitWatch()
    pieces = [[answer[at : at + size] for at in range(0, len(answer), size)] for answer in answers]
    assert [sum(watch.commits(piece) for piece in answer) for answer in pieces] == [0, 0, 0, 1, 0, 1]


def test_watching_may_begin_later_and_pause():
    watch = CommitWatch()
    watch.pass_by(COMMITTED + READY)
    assert watch.commits(COMMITTED + READY) == 1
    watch.pass_by(b"D\0\0\0\x09abc")
    assert watch.commits(b"de" + COMMITTED) == 0  # in the middle of a message: not known where the next begins
    assert watch.commits(READY) == 0
    assert watch.commits(COMMITTED) == 1
