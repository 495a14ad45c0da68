"""Mail is sent: claimed, addressed as the customer service says at that moment, marked, handed over, settled.

Up to the end of RCPT everything may be tried again. From the mark on nothing is, unless the mail server has said no:
a crash or a lost connection then means that nobody knows, and a mail that may have come does not come twice.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from services.notify import contacts, messages, products
from services.notify.addresses import greeted, recipient
from services.notify.decisions import MARKETING, purpose
from services.notify.mail_server import AwayError, MailServer, RefusedError, Session, UnknownError
from services.notify.mails import Letters, Telling
from services.notify.messages import Due, Outcome
from services.notify.settings import NotifySettings
from shared.calls import Call, Calls
from shared.clients import ServiceClient, UnavailableError
from shared.postgres import Database, is_infrastructure
from shared.telemetry import log
from shared.tracing import Trace, current_trace

SESSIONS = 16  # with the mail server, at once
ANSWERS = 12  # of the mail server, each as slow as may be, are waited for before another process may try


class Mailing:
    """Sends the messages that are due."""

    def __init__(self, database: Database, settings: NotifySettings):
        self._database = database
        self._give_up_hours = settings.give_up_hours
        self._stale_days = settings.stale_days
        self._customers = ServiceClient(settings.customer_url, settings)
        self._lease_seconds = ANSWERS * settings.mail_timeout
        self._server = MailServer(settings.smtp_url.get_secret_value(), settings.mail_timeout)
        self._letters = Letters(settings.mail_from)
        self._sessions = asyncio.Semaphore(SESSIONS)
        self._closing = False
        self.calls = Calls[Outcome]("mails", self._claim, lambda outcomes: messages.settle(database, outcomes))

    async def close(self) -> None:
        """End what is under way; what has not been marked is left to the next who claims it."""
        self._closing = True
        await self.calls.close()
        await self._customers.close()

    async def _claim(self, room: int) -> Sequence[Call[Outcome]]:
        claimed = await messages.claim(self._database, room, self._lease_seconds, self._give_up_hours, self._stale_days)
        return [self._send(due) for due in claimed]

    async def _send(self, due: Due) -> Outcome | None:
        current_trace.set(Trace.parse(due.traceparent))
        if due.handing_over:
            return due.failed("unknown")
        if due.stale:
            return due.failed("stale")
        if due.overdue:
            return due.failed("gave_up" if due.customer_id else "unknown_customer")
        try:
            if due.customer_id is None:
                raise AwayError("nobody knows yet whose order it is")
            # The mail server first: while it is away nobody's address is read in vain.
            async with self._sessions:
                self._go_on()
                async with self._server.session() as session:
                    return await self._within(session, due, due.customer_id)
        except (AwayError, UnavailableError) as trouble:
            await self._again(due, str(trouble))
        except Exception as error:
            # Not logged as it is: its text, or what a traceback shows of variables, may hold a name or an address.
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("mail could not be made", error=type(error).__name__, at=f"{place.filename}:{place.lineno}")
            if not is_infrastructure(error):  # else the database is away, and the lease ends
                await self._again(due, type(error).__name__)
        return None

    def _go_on(self) -> None:
        if self._closing:
            raise AwayError("we are closing")

    async def _within(self, session: Session, due: Due, customer_id: UUID) -> Outcome | None:
        contact = await contacts.look_up(self._customers, customer_id, purpose(due.trigger), due.order_id)
        if contact is None:
            return due.failed("unknown_customer")
        if not contact.allowed:
            return due.failed(contact.reason or "opted_out")
        telling = await self._telling(due, greeted(contact.name))
        try:
            to = recipient(contact.email or "")
        except ValueError:
            return due.failed("no_address")
        try:
            mail = self._letters.write(telling, to, datetime.now(UTC))
        except ValueError:
            log.error("mail is not what was meant", order_id=str(due.order_id), trigger=due.trigger)
            return due.failed("no_address")
        try:
            await session.address(self._letters.sender.addr_spec, to)
            self._go_on()
            if not await messages.hand_over(self._database, due):
                return None  # stopped, or claimed again because we were slow
            await session.hand_over(mail)
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
