"""Sealed boxes (libsodium, X25519 + XSalsa20-Poly1305): what order accepts and only customer can read."""

from __future__ import annotations

import base64
from uuid import UUID

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox
from pydantic import BaseModel, ConfigDict


class Buyer(BaseModel):
    """Who buys, as the channel tells it. ``channel_id`` is the channel's own id of the buyer."""

    model_config = ConfigDict(frozen=True)

    name: str | None = None
    email: str | None = None
    phone: str | None = None
    channel_id: str | None = None


class Recipient(BaseModel):
    """Where the goods go. ``country`` is ISO 3166 alpha-2."""

    model_config = ConfigDict(frozen=True)

    name: str
    street: str
    city: str
    postal_code: str | None = None
    region: str | None = None
    country: str
    phone: str | None = None


class SealedBuyer(BaseModel):
    """The personal data of one order; free text counts as personal. ``order_id`` binds it to its order."""

    model_config = ConfigDict(frozen=True)

    order_id: UUID
    buyer: Buyer
    recipient: Recipient
    note: str | None = None


class UnreadableError(ValueError):
    """The box was not sealed with this key, was changed, or belongs to another order."""


def seal(public_key: str, content: SealedBuyer) -> str:
    """``content`` as base64 of a sealed box; ``public_key`` is base64 of 32 bytes."""
    box = SealedBox(PublicKey(base64.b64decode(public_key)))
    return base64.b64encode(box.encrypt(content.model_dump_json(exclude_none=True).encode())).decode()


def unseal(private_key: bytes, sealed: str, order_id: UUID) -> SealedBuyer:
    """The content of a box that belongs to ``order_id``; raises UnreadableError."""
    try:
        content = SealedBuyer.model_validate_json(SealedBox(PrivateKey(private_key)).decrypt(base64.b64decode(sealed)))
    except (CryptoError, ValueError) as error:
        raise UnreadableError(f"sealed data of order {order_id} cannot be read") from error
    if content.order_id != order_id:
        raise UnreadableError(f"sealed data of order {order_id} belongs to another order")
    return content
