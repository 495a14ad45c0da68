"""Mail is sent: claimed, addressed as the customer service says at that moment, marked, handed over, settled.

Up to the end of RCPT everything may be tried again. From the mark on nothing is, unless the mail server has said no:
a crash or a lost connection then means that nobody knows, and a mail that may have come does not come twice.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime

from services.notify import contacts, messages, products
from services.notify.decisions import MARKETING, purpose
from services.notify.mail_server import AwayError, MailServer, RefusedError, Session, UnknownError
from services.notify.mails import Letters, Telling, recipient
from services.notify.messages import Due, Outcome
from services.notify.settings import NotifySettings
from shared.calls import Call, Calls
from shared.clients import ServiceClient, UnavailableError
from shared.postgres import Database, is_infrastructure
from shared.telemetry import log
from shared.tracing import Trace, current_trace

SESSIONS = 16  # with the mail server, at once


class Mailing:
    """Sends the messages that are due."""

    def __init__(self, database: Database, settings: NotifySettings):
        self._database = database
        self._give_up_hours = settings.give_up_hours
        self._customers = ServiceClient(settings.customer_url, settings)
        self._server = MailServer(settings.smtp_url.get_secret_value(), settings.mail_timeout)
        self._letters = Letters(settings.mail_from)
        self._sessions = asyncio.Semaphore(SESSIONS)
        self.calls = Calls[Outcome]("mails", self._claim, lambda outcomes: messages.settle(database, outcomes))

    async def close(self) -> None:
        await self.calls.close()
        await self._customers.close()

    async def _claim(self, room: int) -> Sequence[Call[Outcome]]:
        return [self._send(due) for due in await messages.claim(self._database, room, self._give_up_hours)]

    async def _send(self, due: Due) -> Outcome | None:
        current_trace.set(Trace.parse(due.traceparent))
        if due.handing_over:
            return due.failed("unknown")
        if due.customer_id is None:
            return due.failed("unknown_customer")
        if due.overdue:
            return due.failed("gave_up")
        try:
            # The mail server first: while it is away nobody's address is read in vain.
            async with self._sessions, self._server.session() as session:
                return await self._within(session, due)
        except (AwayError, UnavailableError) as trouble:
            await self._again(due, str(trouble))
        except Exception as error:
            if is_infrastructure(error):
                raise  # the database is away; the lease ends
            # Not logged as it is: its text may hold a name or an address.
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("mail could not be made", error=type(error).__name__, at=f"{place.filename}:{place.lineno}")
            await self._again(due, type(error).__name__)
        return None

    async def _within(self, session: Session, due: Due) -> Outcome | None:
        assert due.customer_id is not None
        contact = await contacts.look_up(self._customers, due.customer_id, purpose(due.trigger))
        if contact is None:
            return due.failed("unknown_customer")
        if not contact.allowed:
            return due.failed(contact.reason or "opted_out")
        if not contact.email:
            return due.failed("no_address")
        try:
            to = recipient(contact.name, contact.email)
        except ValueError:
            return due.failed("no_address")
        mail = self._letters.write(await self._telling(due, contact.name), to, datetime.now(UTC))
        try:
            await session.address(self._letters.sender.addr_spec, to.addr_spec)
            if not await messages.hand_over(self._database, due):
                return None  # stopped, or claimed again because we were slow
            await session.hand_over(mail, to.addr_spec)
        except RefusedError as no:
            log.warning("mail refused", order_id=str(due.order_id), trigger=due.trigger, answer=str(no))
            return due.failed("rejected")
        except UnknownError as lost:
            log.error("nobody knows if a mail was sent", order_id=str(due.order_id), trigger=due.trigger, why=str(lost))
            return due.failed("unknown")
        return due.sent()

    async def _telling(self, due: Due, name: str | None) -> Telling:
        async with self._database.reading() as db:
            own = await products.skus(db, due.order_id)
            named = await products.names(db, due.facts.get("skus", own))
            related = await products.related(db, due.order_id, own) if due.trigger in MARKETING else None
        return Telling(due.order_id, due.trigger, name, due.reference, due.reason, named, related, due.facts)

    async def _again(self, due: Due, why: str) -> None:
        log.warning(
            "mail not sent yet", order_id=str(due.order_id), trigger=due.trigger, attempt=due.attempts, reason=why
        )
        await messages.again(self._database, due)
