"""What a buyer's data mean: by what somebody is recognised, and under what somebody is found. Plain text, no I/O."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.sealing import Buyer


@dataclass(frozen=True)
class Trait:
    """By what somebody is recognised: ``kind`` is channel or email; it counts within ``scope`` only ("": anywhere)."""

    kind: str
    scope: str
    value: str

    @property
    def text(self) -> str:
        return "\x1f".join((self.kind, self.scope, self.value))

    @classmethod
    def read(cls, text: str) -> Trait:
        return cls(*text.split("\x1f", 2))


@dataclass(frozen=True)
class Contact:
    """``value`` as it was written; ``normal`` as it is searched for. ``kind`` is name, email or phone."""

    kind: str
    value: str
    normal: str


@dataclass
class Masks:
    """Which e-mail addresses a marketplace made up: they stand for a buyer of that channel and for nobody else."""

    emails: Sequence[str] = ()
    channels: Sequence[str] = ()
    _patterns: Sequence[re.Pattern[str]] = field(init=False)

    def __post_init__(self) -> None:
        self._patterns = [re.compile(pattern, re.IGNORECASE) for pattern in self.emails]

    def hide(self, channel: str, email: str) -> bool:
        return channel in self.channels or any(pattern.fullmatch(email) for pattern in self._patterns)


def traits(buyer: Buyer, channel: str, masks: Masks) -> tuple[Trait, ...]:
    """By what this buyer is recognised, strongest first. A phone or a name alone recognises nobody.

    A masked address counts within its channel only, and only where the channel does not say who it is.
    """
    found: list[Trait] = []
    channel_id = (buyer.channel_id or "").strip()
    email = normal_email(buyer.email or "")
    if channel_id:
        found.append(Trait("channel", channel, channel_id))
    if is_email(email):  # "n/a" must not make all who wrote it one person
        masked = masks.hide(channel, email)
        if not (masked and channel_id):
            found.append(Trait("email", channel if masked else "", email))
    return tuple(found)


def contacts(name: str | None, email: str | None, phone: str | None) -> list[Contact]:
    """Under what somebody was seen."""
    written = (("name", name, normal_name), ("email", email, normal_email), ("phone", phone, normal_phone))
    found = [Contact(kind, value.strip(), normal(value)) for kind, value, normal in written if value]
    return [contact for contact in found if contact.normal]


def normal_email(written: str) -> str:
    return unicodedata.normalize("NFC", written).strip().lower()


def is_email(normal: str) -> bool:
    return re.fullmatch(r"[^\s@]+@[^\s@]+", normal) is not None


def normal_phone(written: str) -> str:
    """Digits, with + before an international number: (030) 123-45 is 03012345, 0049 30 12345 is +493012345."""
    digits = "".join(str(unicodedata.digit(sign)) for sign in written if unicodedata.digit(sign, None) is not None)
    if written.strip().startswith("+"):
        return f"+{digits}" if digits else ""
    return f"+{digits[2:]}" if digits.startswith("00") else digits


def normal_name(written: str) -> str:
    return " ".join(name_words(written))


def name_words(written: str) -> list[str]:
    """The words of a name, without case and accents: Zoë Strauß-Müller is zoe, strauss, muller."""
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", written) if not unicodedata.combining(sign))
    return re.findall(r"\w+", plain.casefold())
