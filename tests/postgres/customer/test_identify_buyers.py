"""A batch in; rows and outbox out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from services.customer.keyring import Keyring
from shared.events.customer import BuyerIdentified, CustomerRegistered
from shared.sealing import Buyer
from shared.topics import CUSTOMERS, IDENTIFICATIONS

if TYPE_CHECKING:
    from tests.postgres.customer.conftest import World

ALICE = Buyer(name="Alice Wonderly", email="alice@home.example", phone="+49 30 555", channel_id="A-4711")


async def test_a_buyer_is_identified_and_the_customer_registered(world: World) -> None:
    await world.take(world.sealed("lamps", ALICE))
    ((registered, version),) = await world.said(CUSTOMERS)
    ((identified, sequence),) = await world.said(IDENTIFICATIONS)
    assert isinstance(registered, CustomerRegistered)
    assert isinstance(identified, BuyerIdentified)
    assert (version, sequence) == (1, 1)
    assert registered.customer_id == identified.customer_id
    assert not registered.guest
    assert identified.new_customer
    assert await world.rows("SELECT recipient_id, order_id FROM recipients") == [
        (identified.recipient_id, identified.order_id)
    ]


async def test_the_same_buyer_twice_is_answered_once(world: World) -> None:
    lamps = world.sealed("lamps", ALICE)
    await world.take(lamps, lamps)
    await world.take(lamps, world.sealed("lamps", Buyer(name="Mallory", email="mallory@cave.example")))
    assert len(await world.said(IDENTIFICATIONS)) == len(await world.said(CUSTOMERS)) == 1
    assert await world.rows("SELECT count(*) FROM contacts") == [(3,)]


async def test_buyers_are_joined_by_email_across_channels_but_not_by_phone(world: World) -> None:
    await world.take(
        world.sealed("lamps", ALICE),
        world.sealed("cups", Buyer(email=" ALICE@home.example"), channel="store"),
        world.sealed("jars", Buyer(phone="+49 30 555"), channel="store"),
    )
    await world.take(world.sealed("rugs", Buyer(email="other@home.example", channel_id="A-4711")))
    lamps, cups, jars, rugs = [(await world.answer(one)).customer_id for one in ("lamps", "cups", "jars", "rugs")]
    assert lamps == cups == rugs != jars


async def test_a_masked_address_is_one_customer_per_channel(world: World) -> None:
    masked = Buyer(email="u1@marketplace.example")
    await world.take(
        world.sealed("lamps", masked), world.sealed("cups", masked), world.sealed("jars", masked, channel="fair")
    )
    lamps, cups, jars = [(await world.answer(one)).customer_id for one in ("lamps", "cups", "jars")]
    assert lamps == cups != jars


async def test_a_hash_collision_does_not_merge(world: World) -> None:
    class Colliding(Keyring):
        def blind(self, *parts: str) -> bytes:
            return b"the same for all"

    keyring = Colliding(b"m" * 32)
    await world.take(world.sealed("lamps", Buyer(email="alice@home.example")), keyring=keyring)
    await world.take(
        world.sealed("cups", Buyer(email="bob@work.example")), world.sealed("jars", Buyer(email="cid@sea.example")),
        world.sealed("rugs", Buyer(email="bob@work.example")), keyring=keyring,
    )  # fmt: skip
    await world.take(world.sealed("pens", Buyer(email="cid@sea.example")), keyring=keyring)
    ids = {one: (await world.answer(one)).customer_id for one in ("lamps", "cups", "jars", "rugs", "pens")}
    assert ids["cups"] == ids["rugs"]
    assert ids["jars"] == ids["pens"]
    assert len(set(ids.values())) == 3


async def test_concurrent_batches_make_one_customer_of_one_new_email(world: World) -> None:
    buyers = [Buyer(email=f"{name}@home.example") for name in ("alice", "bob", "cid")]
    batches = [
        [world.sealed(f"{number}/{place}", buyer) for place, buyer in enumerate(buyers if number % 2 else buyers[::-1])]
        for number in range(12)
    ]
    await asyncio.gather(*(world.take(*batch) for batch in batches))
    assert len(await world.said(CUSTOMERS)) == 3
    identified = [event for event, _ in await world.said(IDENTIFICATIONS)]
    assert len(identified) == 36
    assert sum(event.new_customer for event in identified) == 3
    assert len({event.customer_id for event in identified}) == 3


async def test_concurrent_batches_of_one_order_answer_it_once(world: World) -> None:
    lamps = world.sealed("lamps", ALICE)
    await asyncio.gather(*(world.take(lamps) for _ in range(6)))
    assert len(await world.said(IDENTIFICATIONS)) == len(await world.said(CUSTOMERS)) == 1


async def test_the_buyer_of_an_order_that_was_cancelled_before_is_known_to_be_told(world: World) -> None:
    await world.take(world.cancelled("lamps"))
    await world.take(world.sealed("lamps", ALICE), world.cancelled("cups"), world.sealed("cups", ALICE))
    said = await world.said(IDENTIFICATIONS)
    assert [(type(event), sequence) for event, sequence in said] == [(BuyerIdentified, 1)] * 2
    assert await world.rows("SELECT state, version FROM identifications") == [("ended", 1)] * 2
    assert len(await world.rows("SELECT * FROM customers")) == 1
    assert len(await world.rows("SELECT * FROM recipients")) == 2


async def test_what_cannot_be_read_is_refused(world: World) -> None:
    swapped = world.sealed("cups", ALICE).event.sealed
    await world.take(
        world.sealed("lamps", ALICE, key_id=UUID(int=7)), world.sealed("jars", ALICE, sealed="bm8gYm94"),
        world.sealed("rugs", ALICE, sealed=swapped), world.sealed("pens", ALICE, sealed="not base64"),
    )  # fmt: skip
    await world.retire(world.key_id)
    await world.take(world.sealed("vases", ALICE))
    answers = [event for event, _ in await world.said(IDENTIFICATIONS)]
    assert [event.reason for event in answers] == ["unreadable"] * 5
    assert await world.rows("SELECT * FROM customers") == []


async def test_a_customer_whom_nobody_knows_is_refused_and_an_alias_is_known(world: World) -> None:
    alice, old = await world.customer(), uuid4()
    async with world.database.transaction() as tx:
        await tx.db.execute("INSERT INTO aliases VALUES ($1, $2)", old, alice)
    await world.take(world.sealed("lamps", customer_id=old), world.sealed("cups", customer_id=uuid4()))
    assert (await world.answer("lamps")).customer_id == alice
    assert (await world.answer("cups")).reason == "unknown_customer"


async def test_a_refused_buyer_leaves_no_identity_reserved(world: World) -> None:
    await world.take(world.sealed("lamps", ALICE, points=5))
    assert (await world.answer("lamps")).reason == "points"
    assert await world.rows("SELECT * FROM identities") == []


async def test_nothing_personal_is_stored_or_said_in_clear(world: World) -> None:
    await world.take(world.sealed("lamps", ALICE, note="leave it with Gwendolyn"))
    tables = [name for (name,) in await world.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    dump = b"".join([repr(row).encode() for table in tables for row in await world.rows(f"SELECT * FROM {table}")])
    assert b"bazaar" in dump
    for secret in ("wonderly", "alice", "home.example", "4711", "30555", "30 555", "Zelda", "Larkspur", "Gwendolyn"):
        assert secret.lower().encode() not in dump.lower(), secret
