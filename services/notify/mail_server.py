"""The mail server, spoken to by SMTP (RFC 5321): what is surely not handed over, what is, and what nobody knows.

No error here carries an address or the server's words, which may repeat it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from urllib.parse import unquote, urlsplit

import aiosmtplib

from shared.grouped import Grouped

SESSIONS = 16  # at once
KEPT_SECONDS = 5.0  # a connection that nobody uses; mail servers wait for minutes
MESSAGES_PER_SESSION = 100
HEARD_SECONDS = 10.0  # so long after an answer the server counts as there
ANSWER_TO_DATA_SECONDS = 60.0  # for each of the two answers; a large server checks the content before the second


class AwayError(Exception):
    """The mail server is away or puts us off; it does not have the message."""


class RefusedError(Exception):
    """The mail server does not take this message, today or tomorrow."""


class UnknownError(Exception):
    """The connection was lost while the message was handed over: the mail server may have it or not."""


class Session:
    """One connection, greeted. Of each message first ``address`` it, then ``hand_over``."""

    def __init__(self, client: aiosmtplib.SMTP):
        self._client = client
        self._answered = True
        self.messages = 0

    @property
    def usable(self) -> bool:
        """Connected, and whatever was said has been answered: what comes next answers what is said next."""
        return self._answered and self._client.is_connected

    async def reset(self) -> bool:
        """Make ready for another message; False when the connection is of no more use."""
        try:
            with self._speaking():
                await self._client.rset()
        except (aiosmtplib.SMTPException, OSError):
            return False
        return True

    async def end(self) -> None:
        if self.usable:
            with suppress(aiosmtplib.SMTPException, OSError):
                await self._client.quit(timeout=1)
        self._client.close()

    @contextmanager
    def _speaking(self) -> Generator[None]:
        """421 is the server's farewell, whatever it was asked."""
        self._answered = False
        try:
            yield
        except aiosmtplib.SMTPResponseException as error:
            self._answered = 400 <= error.code < 600 and error.code != 421
            raise
        except ValueError:  # it was not said
            self._answered = True
            raise
        self._answered = True

    async def address(self, sender: str, recipient: str) -> None:
        """MAIL and RCPT, both addresses in ASCII. Raises AwayError, or RefusedError when there is no such recipient."""
        self.messages += 1
        try:
            with self._speaking():
                await self._client.mail(sender)
                await self._client.rcpt(recipient)
        except aiosmtplib.SMTPRecipientRefused as error:
            if 500 <= error.code < 600:
                raise RefusedError(f"RCPT: {_codes(error)}") from None
            raise _away(error) from None
        except ValueError:  # an address that would break out of its command
            raise RefusedError("no address") from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise _away(error) from None

    async def hand_over(self, content: bytes) -> None:
        """DATA. Raises AwayError or RefusedError after a definite no, UnknownError after no answer."""
        try:
            with self._speaking():
                await self._client.data(content, timeout=ANSWER_TO_DATA_SECONDS)
        except aiosmtplib.SMTPDataError as error:
            if 400 <= error.code < 500:
                raise _away(error) from None
            if 500 <= error.code < 600:
                raise RefusedError(f"DATA: {_codes(error)}") from None
            raise UnknownError(f"DATA: {_codes(error)}") from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise UnknownError(type(error).__name__) from None


class MailServer:
    """The server at ``url``, as in ``smtps://user:password@host:465``. With a password TLS is insisted on; else it is
    used where it is offered. ``timeout`` in seconds per answer.

    Connections are kept for the next message, but none on which a message ended in doubt. ``close`` ends them.
    """

    def __init__(self, url: str, timeout: float):
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "localhost", parts.port
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._tls = parts.scheme == "smtps"
        self._timeout = timeout
        self._room = asyncio.Semaphore(SESSIONS)
        self._kept: dict[Session, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._heard = float("-inf")  # when the server last answered; never, once it has failed to
        self._closed = False
        self._greet = Grouped[None, None](self._greet_for, size=1000, lanes=1)

    async def close(self) -> None:
        self._closed = True
        for session in list(self._kept):
            self._let_go(session)
        await asyncio.gather(*self._ending)

    async def answers(self) -> None:
        """Return once the server is known to be there: it has answered lately and hung up on nobody since, or it
        does now. Raises AwayError."""
        if not self._heard_lately():
            await self._greet(None)

    async def _greet_for(self, callers: Sequence[None]) -> list[Exception | None]:
        try:
            if not self._heard_lately():
                async with self.session():
                    pass
        except AwayError as away:
            return [away] * len(callers)
        return [None] * len(callers)

    def _heard_lately(self) -> bool:
        for session in [one for one in self._kept if not one.usable]:
            self._let_go(session)
            self._heard = float("-inf")
        return time.monotonic() - self._heard < HEARD_SECONDS

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[Session]:
        """A connection, a kept one if there is. Waits while SESSIONS are in use. Raises AwayError."""
        async with self._room:
            session = await self._kept_one() or await self._new_one()
            self._heard = time.monotonic()
            try:
                yield session
            finally:
                if not session.usable:
                    self._heard = float("-inf")
                if session.usable and session.messages < MESSAGES_PER_SESSION and not self._closed:
                    self._kept[session] = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._let_go, session)
                else:
                    await session.end()

    async def _kept_one(self) -> Session | None:
        while self._kept:
            session, timer = self._kept.popitem()
            timer.cancel()
            if await session.reset():
                return session
            await session.end()
        return None

    async def _new_one(self) -> Session:
        client = aiosmtplib.SMTP(
            hostname=self._host, port=self._port, username=self._user, password=self._password, use_tls=self._tls,
            start_tls=True if self._user and not self._tls else None, timeout=self._timeout,
            local_hostname=socket.gethostname(),
        )  # fmt: skip
        try:
            await client.connect()
        except (aiosmtplib.SMTPException, OSError) as error:
            client.close()
            self._heard = float("-inf")
            raise _away(error) from None
        return Session(client)

    def _let_go(self, session: Session) -> None:
        self._kept.pop(session).cancel()
        task = asyncio.create_task(session.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _away(error: Exception) -> AwayError:
    codes = f" {_codes(error)}" if isinstance(error, aiosmtplib.SMTPResponseException) else ""
    return AwayError(f"{type(error).__name__}{codes}")


def _codes(error: aiosmtplib.SMTPResponseException) -> str:
    """As in 550 5.1.1 (RFC 3463); none of the words."""
    enhanced = re.match(r"[245]\.\d{1,3}\.\d{1,3}(?=\s|$)", error.message)
    return f"{error.code} {enhanced[0]}" if enhanced else str(error.code)
