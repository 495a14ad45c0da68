"""Encryption per person: bound to its place, its key and its owner."""

from __future__ import annotations

from uuid import UUID

import pytest

from services.customer.keyring import Keyring, UndecipherableError

KEYRING, OTHER = Keyring(b"k" * 32), Keyring(b"o" * 32)
ALICE, BOB = UUID(int=0xA11CE), UUID(int=0xB0B)


def test_what_was_encrypted_is_read_again_and_never_looks_the_same() -> None:
    key, wrapped = KEYRING.new_data_key(ALICE)
    one, two = (key.encrypt("contacts", "value", ALICE, "alice@home.example") for _ in range(2))
    assert one != two
    assert b"alice" not in one
    assert KEYRING.data_key(ALICE, wrapped).text("contacts", "value", ALICE, one) == "alice@home.example"


@pytest.mark.parametrize(
    "place", [("contacts", "value", BOB), ("contacts", "other", ALICE), ("recipients", "value", ALICE)]
)
def test_a_ciphertext_moved_elsewhere_cannot_be_read(place: tuple[str, str, UUID]) -> None:
    key, _ = KEYRING.new_data_key(ALICE)
    moved = key.encrypt("contacts", "value", ALICE, "alice@home.example")
    with pytest.raises(UndecipherableError):
        key.decrypt(*place, moved)


def test_a_changed_or_truncated_ciphertext_cannot_be_read() -> None:
    key, _ = KEYRING.new_data_key(ALICE)
    good = key.encrypt("contacts", "value", ALICE, "alice@home.example")
    for bad in (good[:-1] + bytes([good[-1] ^ 1]), good[:20], b"", b"\x02" + good[1:]):
        with pytest.raises(UndecipherableError):
            key.decrypt("contacts", "value", ALICE, bad)


def test_a_data_key_opens_for_its_owner_and_its_master_only() -> None:
    _, wrapped = KEYRING.new_data_key(ALICE)
    for keyring, owner in ((KEYRING, BOB), (OTHER, ALICE)):
        with pytest.raises(UndecipherableError):
            keyring.data_key(owner, wrapped)


def test_a_blind_index_depends_on_the_master_key_and_on_where_its_parts_end() -> None:
    assert KEYRING.blind("email", "alice") == KEYRING.blind("email", "alice")
    assert KEYRING.blind("email", "alice") != OTHER.blind("email", "alice")
    assert KEYRING.blind("email", "alice") != KEYRING.blind("emaila", "lice")
    assert KEYRING.blind("email", "alice") != KEYRING.fingerprint("email", "alice")
