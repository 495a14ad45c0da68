"""Mail is sent: claimed, addressed as the customer service says at that moment, marked, handed over, settled.

Up to the end of RCPT everything may be tried again. From the mark on nothing is, unless the mail server has said no:
a crash or a lost connection then means that nobody knows, and a mail that may have come does not come twice.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from services.notify import messages, products
from services.notify.addresses import greeted, recipient
from services.notify.contacts import Contacts, Question
from services.notify.decisions import MARKETING, purpose
from services.notify.mail_server import AwayError, MailServer, RefusedError, Session, UnknownError
from services.notify.mails import Letters, Telling
from services.notify.messages import Due, Outcome
from services.notify.settings import NotifySettings
from shared.calls import Call, Calls
from shared.clients import ServiceClient, UnavailableError
from shared.grouped import Grouped
from shared.postgres import Database, is_infrastructure
from shared.telemetry import log
from shared.tracing import Trace, current_trace

FRESH_SECONDS = 10.0  # so old may be what was said of consent and address when a mail is handed over
ANSWERS = 12  # of the mail server, each as slow as may be, are waited for before another process may try


@dataclass(frozen=True)
class Letter:
    """A mail as it goes over the wire, and to whom."""

    to: str
    content: bytes


class Mailing:
    """Sends the messages that are due. What several of them need at the same time is asked for once."""

    def __init__(self, database: Database, settings: NotifySettings):
        self._database = database
        self._give_up_hours = settings.give_up_hours
        self._stale_days = settings.stale_days
        self._customers = ServiceClient(settings.customer_url, settings)
        self._lease_seconds = ANSWERS * settings.mail_timeout
        self._server = MailServer(settings.smtp_url.get_secret_value(), settings.mail_timeout)
        self._letters = Letters(settings.mail_from)
        self._contacts = Contacts(self._customers)
        self._goods = Grouped(self._goods_of)
        self._mark = Grouped[Due, bool](lambda dues: messages.hand_over(database, dues))
        self._closing = False
        self.calls = Calls[Outcome]("mails", self._claim, lambda outcomes: messages.settle(database, outcomes))

    async def close(self) -> None:
        """End what is under way; what has not been marked is left to the next who claims it."""
        self._closing = True
        await self.calls.close()
        await self._server.close()
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
            return await self._deliver(due, due.customer_id)
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

    async def _deliver(self, due: Due, customer_id: UUID) -> Outcome | None:
        """No connection is taken up by a message that is not sent."""
        self._go_on()
        await self._server.answers()  # first: while it is away nobody's address is read in vain
        asked = time.monotonic()
        letter = await self._letter(due, customer_id)
        if isinstance(letter, Outcome):
            return letter
        async with self._server.session() as session:
            self._go_on()
            if time.monotonic() - asked > FRESH_SECONDS:  # the others took long; an opt-out meanwhile wins
                letter = await self._letter(due, customer_id)
            return letter if isinstance(letter, Outcome) else await self._hand_over(session, due, letter)

    async def _letter(self, due: Due, customer_id: UUID) -> Letter | Outcome:
        trace = current_trace.get()
        contact = await self._contacts.look_up(Question(customer_id, purpose(due.trigger), due.order_id, trace))
        if contact is None:
            return due.failed("unknown_customer")
        if not contact.allowed:
            return due.failed(contact.reason or "opted_out")
        try:
            to = recipient(contact.email or "")
        except ValueError:
            return due.failed("no_address")
        named, related = await self._goods(due)
        name = greeted(contact.name)
        telling = Telling(due.order_id, due.trigger, name, due.reference, due.reason, named, related, due.facts)
        try:
            return Letter(to, self._letters.write(telling, to, datetime.now(UTC)))
        except ValueError:
            log.error("mail is not what was meant", order_id=str(due.order_id), trigger=due.trigger)
            return due.failed("no_address")

    async def _hand_over(self, session: Session, due: Due, letter: Letter) -> Outcome | None:
        try:
            await session.address(self._letters.sender.addr_spec, letter.to)
            self._go_on()
            if not await self._mark(due):
                return None  # stopped, or claimed again because we were slow
            await session.hand_over(letter.content)
        except RefusedError as no:
            log.warning("mail refused", order_id=str(due.order_id), trigger=due.trigger, answer=str(no))
            return due.failed("rejected")
        except UnknownError as lost:
            log.error("nobody knows if a mail was sent", order_id=str(due.order_id), trigger=due.trigger, why=str(lost))
            return due.failed("unknown")
        return due.sent()

    async def _goods_of(self, dues: Sequence[Due]) -> list[tuple[list[str], str | None]]:
        """The names of the products that each message is about, and of one that goes with them."""
        async with self._database.reading() as db:
            own = await products.skus(db, [due.order_id for due in dues])
            about: list[list[str]] = [due.facts.get("skus", own[due.order_id]) for due in dues]
            names = await products.names(db, (sku for skus in about for sku in skus))
            return [
                (
                    [names[sku] for sku in skus],
                    await products.related(db, due.order_id, own[due.order_id]) if due.trigger in MARKETING else None,
                )
                for due, skus in zip(dues, about, strict=True)
            ]

    async def _again(self, due: Due, why: str) -> None:
        log.warning(
            "mail not sent yet", order_id=str(due.order_id), trigger=due.trigger, attempt=due.attempts, reason=why
        )
        await messages.again(self._database, due)
