"""Encryption per person: each customer has a data key, wrapped with the master key. Without it nothing can be read.

AES-256-GCM throughout; every ciphertext is bound to its table, column and id, so that none can be moved elsewhere.
Format: one byte of version, 12 bytes of nonce, the ciphertext with its tag of 16 bytes.
"""

from __future__ import annotations

import hmac
import os
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION = b"\x01"
_NONCE_BYTES = 12


class UndecipherableError(Exception):
    """A ciphertext that was changed, moved to another place, or made with another key."""


class DataKey:
    """Encrypts what belongs to one person, or (as the wrapping key) other keys."""

    def __init__(self, key: bytes):
        self._cipher = AESGCM(key)

    def encrypt(self, table: str, column: str, id: object, plain: bytes | str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        plain = plain.encode() if isinstance(plain, str) else plain
        return _VERSION + nonce + self._cipher.encrypt(nonce, plain, _place(table, column, id))

    def decrypt(self, table: str, column: str, id: object, ciphertext: bytes) -> bytes:
        """The plain bytes; raises UndecipherableError."""
        nonce, rest = ciphertext[1 : 1 + _NONCE_BYTES], ciphertext[1 + _NONCE_BYTES :]
        try:
            if ciphertext[:1] != _VERSION:
                raise ValueError("unknown version")
            return self._cipher.decrypt(nonce, rest, _place(table, column, id))
        except (InvalidTag, ValueError) as error:
            raise UndecipherableError(f"{table}.{column} of {id} cannot be decrypted") from error

    def text(self, table: str, column: str, id: object, ciphertext: bytes) -> str:
        return self.decrypt(table, column, id, ciphertext).decode()


class Keyring:
    """What derives from the master key (32 bytes): the wrapping of keys, blind indexes, fingerprints."""

    def __init__(self, master_key: bytes):
        if len(master_key) != 32:
            raise ValueError("the master key has 32 bytes")
        self._wrapping = DataKey(_derive(master_key, b"isthmus customer wrapping"))
        self._index_key = _derive(master_key, b"isthmus customer blind index")
        self._fingerprint_key = _derive(master_key, b"isthmus customer fingerprint")

    def blind(self, *parts: str) -> bytes:
        """A hash (32 bytes) by which an encrypted value is found; without the master key it says nothing."""
        return _hmac(self._index_key, parts)

    def fingerprint(self, *parts: str) -> bytes:
        """A hash (32 bytes) by which a command with personal data is recognised."""
        return _hmac(self._fingerprint_key, parts)

    def wrap(self, table: str, column: str, id: object, key: bytes) -> bytes:
        return self._wrapping.encrypt(table, column, id, key)

    def unwrap(self, table: str, column: str, id: object, wrapped: bytes) -> bytes:
        return self._wrapping.decrypt(table, column, id, wrapped)

    def new_data_key(self, customer_id: UUID) -> tuple[DataKey, bytes]:
        """A new customer's key, and the same wrapped, to be stored."""
        key = AESGCM.generate_key(256)
        return DataKey(key), self.wrap("customers", "data_key", customer_id, key)

    def data_key(self, customer_id: UUID, wrapped: bytes) -> DataKey:
        return DataKey(self.unwrap("customers", "data_key", customer_id, wrapped))


def _place(table: str, column: str, id: object) -> bytes:
    return f"{table}.{column}:{id}".encode()


def _derive(master_key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, None, purpose).derive(master_key)


def _hmac(key: bytes, parts: tuple[str, ...]) -> bytes:
    encoded = [part.encode() for part in parts]
    return hmac.digest(key, b"".join(len(part).to_bytes(4, "big") + part for part in encoded), "sha256")
