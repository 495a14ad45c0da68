"""What comes in by SMTP."""

import asyncio
from typing import cast
from weakref import WeakSet

from aiosmtpd.smtp import SMTP, Envelope, Session

from .behaviour import Behaviour
from .mailbox import Mailbox, message_id_of

NAME = "mail.sandbox"
CLOSED = f"421 4.3.2 {NAME} is closed\r\n".encode()


class Reception:
    """Takes mails into the mailbox, as the behaviour allows."""

    def __init__(self, mailbox: Mailbox, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self._mailbox = mailbox
        self._open = WeakSet[SMTP]()

    def behave(self, behaviour: Behaviour) -> None:
        """From now on; a server that closes hangs up on everybody."""
        self.behaviour = behaviour
        for smtp in list(self._open) if not behaviour.accepting else ():
            _send_away(smtp.transport)

    def connection(self) -> asyncio.BaseProtocol:
        """Return the protocol of a new connection."""
        if not self.behaviour.accepting:
            return _Closed()
        smtp = SMTP(self, hostname=NAME, enable_SMTPUTF8=True, loop=asyncio.get_running_loop())
        self._open.add(smtp)
        return smtp

    # Called by aiosmtpd, by these names.

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.behaviour.rejects(address):
            return "550 5.1.1 No such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        raw = envelope.original_content or b""
        message_id = message_id_of(raw)
        fate = self.behaviour.fate(message_id)
        if fate != "kept" and not self._mailbox.hinder(message_id):
            fate = "kept"
        if fate == "deferred":
            return "451 4.3.0 Try again later"
        self._mailbox.add(envelope.mail_from or "", envelope.rcpt_tos, raw)
        if fate == "dropped":
            cast(asyncio.WriteTransport, server.transport).abort()
            await asyncio.Event().wait()  # no answer: the lost connection cancels this
        return "250 2.0.0 OK"


class _Closed(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        _send_away(transport)


def _send_away(transport: asyncio.BaseTransport | None) -> None:
    if transport is not None:
        cast(asyncio.WriteTransport, transport).write(CLOSED)  # that of uvloop is one, but of no class of asyncio
        transport.close()
