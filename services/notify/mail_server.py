"""The mail server, spoken to by SMTP (RFC 5321): what is surely not handed over, what is, and what nobody knows.

No error here carries an address or the server's words, which may repeat it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
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
        """MAIL and RCPT, both addresses in ASCII. Raises AwayError, or RefusedError when there is no such recipient."""
        try:
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
    codes = f" {_codes(error)}" if isinstance(error, aiosmtplib.SMTPResponseException) else ""
    return AwayError(f"{type(error).__name__}{codes}")


def _codes(error: aiosmtplib.SMTPResponseException) -> str:
    """As in 550 5.1.1 (RFC 3463); none of the words."""
    enhanced = re.match(r"[245]\.\d{1,3}\.\d{1,3}(?=\s|$)", error.message)
    return f"{error.code} {enhanced[0]}" if enhanced else str(error.code)
