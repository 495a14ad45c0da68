"""Whom a message goes to, asked of the customer service when it is sent; nothing of it is kept."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel

from shared.clients import ServiceClient


class Contact(BaseModel):
    """``reason``, as in opted_out, is why a message is not ``allowed``."""

    name: str | None = None
    email: str | None = None
    allowed: bool
    reason: str | None = None


async def look_up(customers: ServiceClient, customer_id: UUID, purpose: str, order_id: UUID) -> Contact | None:
    """Where to write about this order for this purpose, and whether we may; None for somebody unknown. Raises
    UnavailableError."""
    answer = await customers.get(f"/customers/{customer_id}/contact", purpose=purpose, order_id=str(order_id))
    said: dict[str, Any] | None = answer.json() if answer.is_success else None
    return None if said is None else Contact.model_validate(said)
