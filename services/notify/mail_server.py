"""The mail server, spoken to by SMTP (RFC 5321): what is surely not handed over, what is, and what nobody knows.

No error here carries an address or the server's words, which may repeat it.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from email.message import EmailMessage
from email.policy import SMTP as ASCII
from email.policy import SMTPUTF8
from urllib.parse import unquote, urlsplit

import aiosmtplib

ANSWER_TO_DATA_SECONDS = 60.0  # for each of the two answers; a large server checks the content before the second


class AwayError(Exception):
    """The mail server is away or puts us off; it does not have the message."""


class RefusedError(Exception):
    """The mail server does not take this message, today or tomorrow."""


class UnknownError(Exception):
    """The connection was lost while the message was handed over: the mail server may have it or not."""


class Session:
    """One connection, for one message: first ``address`` it, then ``hand_over``."""

    def __init__(self, client: aiosmtplib.SMTP):
        self._client = client

    async def address(self, sender: str, recipient: str) -> None:
        """MAIL and RCPT. Raises AwayError, or RefusedError when there is no such recipient."""
        options, encoding = ((), "ascii") if recipient.isascii() else (("SMTPUTF8",), "utf-8")
        try:
            if options and not await self._speaks_utf8():
                raise RefusedError("the address is not ASCII, and the mail server speaks nothing else")
            await self._client.mail(sender, options=options)
            await self._client.rcpt(recipient, encoding=encoding)
        except aiosmtplib.SMTPRecipientRefused as error:
            if 500 <= error.code < 600:
                raise RefusedError(f"RCPT: {error.code}") from None
            raise _away(error) from None
        except ValueError:  # an address that would break out of its command
            raise RefusedError("no address") from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise _away(error) from None

    async def _speaks_utf8(self) -> bool:
        if not self._client.last_ehlo_response:
            await self._client.ehlo()
        return self._client.supports_extension("SMTPUTF8")

    async def hand_over(self, mail: EmailMessage, recipient: str) -> None:
        """DATA. Raises AwayError or RefusedError after a definite no, UnknownError after no answer."""
        content = mail.as_bytes(policy=ASCII if recipient.isascii() else SMTPUTF8)
        try:
            await self._client.data(content, timeout=ANSWER_TO_DATA_SECONDS)
        except aiosmtplib.SMTPDataError as error:
            if 400 <= error.code < 500:
                raise _away(error) from None
            if 500 <= error.code < 600:
                raise RefusedError(f"DATA: {error.code}") from None
            raise UnknownError(f"DATA: {error.code}") from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise UnknownError(type(error).__name__) from None


class MailServer:
    """The server at ``url``, as in ``smtps://user:password@host:465``. With a password TLS is insisted on; else it is
    used where it is offered. ``timeout`` in seconds per answer."""

    def __init__(self, url: str, timeout: float):
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "localhost", parts.port
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._tls = parts.scheme == "smtps"
        self._timeout = timeout

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[Session]:
        """A connection that has been greeted. Raises AwayError."""
        client = aiosmtplib.SMTP(
            hostname=self._host, port=self._port, username=self._user, password=self._password, use_tls=self._tls,
            start_tls=True if self._user and not self._tls else None, timeout=self._timeout,
            local_hostname=socket.gethostname(),
        )  # fmt: skip
        try:
            await client.connect()
        except (aiosmtplib.SMTPException, OSError) as error:
            client.close()
            raise _away(error) from None
        try:
            yield Session(client)
        finally:
            with suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=1)
            client.close()


def _away(error: Exception) -> AwayError:
    code = f" {error.code}" if isinstance(error, aiosmtplib.SMTPResponseException) else ""
    return AwayError(f"{type(error).__name__}{code}")
