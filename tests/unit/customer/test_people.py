"""By what somebody is recognised, and under what somebody is found."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.customer.people import Masks, Trait, contacts, is_email, name_words, normal_phone, traits
from services.customer.settings import CustomerSettings
from shared.sealing import Buyer

MASKS = Masks(CustomerSettings.model_fields["masked_emails"].get_default(), channels=("shy-bazaar",))


def test_an_email_is_recognised_across_channels_however_it_is_written() -> None:
    expected = (Trait("email", "", "alice@home.example"),)
    assert traits(Buyer(email=" Alice@Home.Example "), "bazaar", MASKS) == expected
    assert traits(Buyer(email="alice@home.example"), "store", MASKS) == expected


def test_the_channels_own_id_comes_first_and_counts_in_its_channel() -> None:
    buyer = Buyer(channel_id="4711", email="alice@home.example")
    assert traits(buyer, "bazaar", MASKS) == (
        Trait("channel", "bazaar", "4711"),
        Trait("email", "", "alice@home.example"),
    )
    assert traits(buyer, "market", MASKS)[0] != traits(buyer, "bazaar", MASKS)[0]


@pytest.mark.parametrize(
    "masked", ["x1@relay.marketplace.example", "X1@marketplace.amazon.co.uk", "u9@members.ebay.com"]
)
def test_a_masked_address_never_leaves_its_channel(masked: str) -> None:
    assert traits(Buyer(email=masked), "bazaar", MASKS) == (Trait("email", "bazaar", masked.lower()),)
    assert traits(Buyer(email=masked, channel_id="7"), "bazaar", MASKS) == (Trait("channel", "bazaar", "7"),)


def test_a_channel_may_mask_every_address() -> None:
    assert traits(Buyer(email="a@b.example"), "shy-bazaar", MASKS) == (Trait("email", "shy-bazaar", "a@b.example"),)


def test_neither_phone_nor_name_nor_nonsense_recognises_anybody() -> None:
    assert traits(Buyer(name="Alice", phone="+49 30 1234", email="n/a", channel_id=" "), "bazaar", MASKS) == ()


def test_contacts_are_found_however_they_are_written() -> None:
    normal = [one.normal for one in contacts("Zoë  STRAUSS-Müller", "Zoe@Home.example", "0049 (30) 12-34")]
    assert normal == ["zoe strauss muller", "zoe@home.example", "+49301234"]
    assert name_words("zoe Strauß") == ["zoe", "strauss"]
    assert normal_phone("+49 30 1234") == "+49301234"
    assert normal_phone("call me") == ""
    assert contacts(" ", "", "-") == []
    assert not is_email("alice@@home")


def test_a_master_key_of_the_wrong_length_is_refused_without_being_shown() -> None:
    given = {"database_url": "", "kafka_bootstrap_servers": "", "auth_issuer": "", "auth_jwks_url": ""}
    with pytest.raises(ValidationError) as refused:
        CustomerSettings.model_validate({**given, "master_key": "c2hvcnQ="})
    assert "5 bytes, not 32" in str(refused.value)
    assert "c2hvcnQ=" not in str(refused.value)
