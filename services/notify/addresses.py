"""To whom a mail goes: an address that every mail server reads alike, and a name that can be greeted."""

from __future__ import annotations

import re
import unicodedata

import idna

LONGEST_NAME = 60

# RFC 5321: a dot-atom in ASCII. Quoted local parts and those of other alphabets are left out: not every server on the
# way takes them, and what one reads as a name another may read as a command.
LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

# What mail programs make a link of, also with the full stops of other scripts.
LINK = re.compile(r"://|www[.\u3002\uff0e\uff61]|[.\u3002\uff0e\uff61][^\W\d_]{2,}", re.IGNORECASE)


def recipient(email: str) -> str:
    """The address to write to, in ASCII. Raises ValueError when ``email`` is none; its text does not repeat it."""
    local, _, domain = email.strip().rpartition("@")
    if not LOCAL.fullmatch(local) or len(local) > 64 or "=?" in local:  # =? begins an encoded word (RFC 2047)
        raise ValueError("not an e-mail address")
    address = f"{local}@{_domain(domain)}"
    if len(address) > 254:
        raise ValueError("not an e-mail address")
    return address


def _domain(written: str) -> str:
    """IDNA 2008, where ß is a letter of its own; the names of 2003 would lead to another's mail server."""
    try:
        labels = idna.encode(unicodedata.normalize("NFC", written.lower())).decode().split(".")
    except UnicodeError:  # of which idna.IDNAError is one
        raise ValueError("not an e-mail address") from None
    if not all(LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise ValueError("not an e-mail address")
    return ".".join(labels)


def greeted(name: str | None) -> str | None:
    """The name as it is greeted; None for what may be an advertisement: whoever orders writes any name for any
    address."""
    shown = one_line(name or "")
    visible = "".join(sign for sign in shown if unicodedata.category(sign) != "Cf")
    return None if len(shown) > LONGEST_NAME or LINK.search(visible) else shown or None


def one_line(text: str) -> str:
    """Without control characters, line breaks, or marks that turn the direction of what follows; and without the
    beginning of an encoded word, which the email package would decode: nothing that could end a header."""
    plain = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", " ", text).replace("=?", "= ?")
    return " ".join(plain.split())
