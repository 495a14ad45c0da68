"""Whom messages go to, asked of the customer service when they are sent; nothing of it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

from shared.clients import ServiceClient, UnansweredError, UnavailableError
from shared.grouped import Grouped
from shared.tracing import Trace, current_trace

AT_ONCE = 200  # as many as the customer service takes
LOOKUPS = "/contacts/lookups"


class Contact(BaseModel):
    """``reason``, as in opted_out, is why a message is not ``allowed``."""

    name: str | None = None
    email: str | None = None
    allowed: bool
    reason: str | None = None


ANSWER = TypeAdapter(list[Contact | None])


@dataclass(frozen=True)
class Question:
    """Where to write about this order for this purpose, and whether we may."""

    customer_id: UUID
    purpose: str
    order_id: UUID
    trace: Trace | None = None


class Contacts:
    """``await look_up(question)`` gives the contact, None for somebody unknown. Raises UnavailableError.

    What is asked at the same time is asked in one request.
    """

    def __init__(self, customers: ServiceClient):
        self._customers = customers
        self.look_up = Grouped(self._together, size=AT_ONCE)

    async def _together(self, questions: Sequence[Question]) -> Sequence[Contact | Exception | None]:
        try:
            return await self._ask(questions)
        except UnansweredError as error:
            return [error] * len(questions)
        except UnavailableError as error:
            if len(questions) == 1:
                return [error]
            # One customer's data may be why: the others need not wait for them.
            return await asyncio.gather(*map(self._alone, questions))

    async def _alone(self, question: Question) -> Contact | Exception | None:
        try:
            return (await self._ask([question]))[0]
        except UnavailableError as error:
            return error

    async def _ask(self, questions: Sequence[Question]) -> list[Contact | None]:
        current_trace.set(questions[0].trace if len(questions) == 1 else None)
        asked = [
            {"customer_id": str(one.customer_id), "purpose": one.purpose, "order_id": str(one.order_id)}
            for one in questions
        ]
        answer = await self._customers.post(LOOKUPS, asked)
        found = ANSWER.validate_python(answer.json()) if answer.is_success else []
        if len(found) != len(questions):  # a 404, too: a customer service that does not have the route yet
            raise UnavailableError(f"POST {LOOKUPS}: {answer.status_code}, {len(found)} of {len(questions)} answers")
        return found
