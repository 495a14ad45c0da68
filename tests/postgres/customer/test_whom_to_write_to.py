"""Of an order one writes to whom it named, of anything else to an address that is surely the customer's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from services.customer import contacts
from services.customer.contacts import Question
from shared.sealing import Buyer
from tests.postgres.customer.conftest import order_id
from tests.postgres.customer.test_contact_history import consent, identified
from tests.postgres.customer.test_contact_history import http as http

if TYPE_CHECKING:
    import httpx2

    from tests.postgres.customer.conftest import World

ADA = Buyer(name="Ada Lovelace", email="ada@home.example")
BOB = Buyer(name="Bob", email="Bob@home.example")


async def told(world: World, customer: UUID, order: str | None, purpose: str = "order_updates") -> dict[str, Any]:
    async with world.database.transaction() as tx:
        id_ = order_id(order) if order else None
        (found,) = await contacts.contacts(tx, world.keyring, [Question(customer, purpose, id_)])
    assert found is not None
    return found


async def whom(world: World, customer: UUID, order: str | None, purpose: str = "order_updates") -> tuple[Any, Any]:
    found = await told(world, customer, order, purpose)
    return found["name"], found["email"]


async def test_each_order_is_written_about_to_the_address_it_was_placed_with(world: World) -> None:
    for n in range(8):
        old = Buyer(name="A. L.", email=f"old{n}@home.example", channel_id=f"c{n}")
        new = Buyer(name="Ada", email=f"new{n}@home.example", channel_id=f"c{n}")
        await world.take(world.sealed(f"a{n}", old), world.sealed(f"b{n}", new))
        ada = (await world.answer(f"b{n}")).customer_id
        assert await whom(world, ada, f"a{n}") == ("A. L.", f"old{n}@home.example")
        assert await whom(world, ada, f"b{n}") == ("Ada", f"new{n}@home.example")


async def test_a_name_written_in_one_order_greets_in_no_other(world: World) -> None:
    names = ["Ada Lovelace", "Win money", None]
    adas = [await identified(world, str(name), Buyer(name=name, email="ada@home.example")) for name in names]
    assert [(await whom(world, ada, str(name)))[0] for ada, name in zip(adas, names, strict=True)] == names
    assert len({*adas}) == 1


async def test_marketing_never_goes_to_an_address_that_an_account_merely_typed(
    world: World, http: httpx2.AsyncClient
) -> None:
    ada = await identified(world, "first", ADA)
    await consent(http, ada, "marketing_email", True)
    await world.take(world.sealed("gift", BOB, customer_id=ada))
    assert await whom(world, ada, "gift") == ("Bob", "Bob@home.example")
    assert await whom(world, ada, "gift", "marketing_email") == (None, "ada@home.example")
    assert await whom(world, ada, "first", "marketing_email") == ("Ada Lovelace", "ada@home.example")


async def test_whose_only_address_was_typed_gets_no_marketing(world: World, http: httpx2.AsyncClient) -> None:
    account = await world.customer()
    await consent(http, account, "marketing_email", True)
    await world.take(world.sealed("lamps", BOB, customer_id=account))
    assert (await whom(world, account, "lamps", "marketing_email"))[1] is None


async def test_a_registered_address_is_the_customers_own(world: World, http: httpx2.AsyncClient) -> None:
    body = {"email": "Cleo@Home.example", "name": "Cleo"}
    cleo = UUID((await http.post("/customers", json=body)).json()["customer_id"])
    await consent(http, cleo, "marketing_email", True)
    for purpose in ("order_updates", "marketing_email"):
        assert await whom(world, cleo, None, purpose) == (None, "cleo@home.example")
        assert await whom(world, cleo, "not there yet", purpose) == (None, "cleo@home.example")
    await world.take(world.sealed("lamps", Buyer(name="Cleo C."), customer_id=cleo))
    assert await whom(world, cleo, "lamps", "marketing_email") == ("Cleo C.", "cleo@home.example")


@pytest.mark.parametrize("nothing", [None, "n/a"])
async def test_an_order_without_an_address_is_written_about_to_the_customers_own(
    world: World, nothing: str | None
) -> None:
    ada = await identified(world, "first", Buyer(email="ada@home.example", channel_id="a1"))
    assert await identified(world, "second", Buyer(name="Ada", email=nothing, channel_id="a1")) == ada
    assert await whom(world, ada, "second") == ("Ada", "ada@home.example")


async def test_an_order_kept_before_it_had_an_address_of_its_own(world: World) -> None:
    ada = await identified(world, "first", ADA)
    async with world.database.transaction() as tx:
        await tx.db.execute("UPDATE recipients SET buyer_name = NULL, buyer_email = NULL")
    assert await whom(world, ada, "first") == (None, "ada@home.example")


async def test_anothers_order_says_nothing(world: World) -> None:
    ada, bob = await identified(world, "first", ADA), await identified(world, "second", BOB)
    assert await whom(world, ada, "second") == (None, "ada@home.example")
    assert await whom(world, bob, "first") == (None, "bob@home.example")


@pytest.mark.parametrize("how", ["account", "marketplace"])
async def test_who_opted_out_is_not_written_to_of_anothers_order_either(
    world: World, http: httpx2.AsyncClient, how: str
) -> None:
    bob = await identified(world, "bobs", BOB)
    if how == "account":
        other = await world.customer()
        await world.take(world.sealed("gift", BOB, customer_id=other))
    else:
        other = await identified(world, "before", Buyer(channel_id="m1"))
        await identified(world, "gift", Buyer(email="bob@HOME.example", channel_id="m1"))
    assert other != bob
    assert (await told(world, other, "gift"))["allowed"]
    await consent(http, bob, "order_updates", False)
    said = await told(world, other, "gift")
    assert (said["allowed"], said["reason"], said["email"]) == (False, "opted_out", None)
    await consent(http, bob, "order_updates", True)
    assert (await told(world, other, "gift"))["allowed"]


async def test_a_masked_address_is_of_its_channel_only(world: World, http: httpx2.AsyncClient) -> None:
    masked = Buyer(name="Ada", email="x1@marketplace.example")
    ada = await identified(world, "lamps", masked)
    await consent(http, ada, "marketing_email", True)
    assert await whom(world, ada, "lamps", "marketing_email") == ("Ada", "x1@marketplace.example")
    await world.take(world.sealed("cups", Buyer(), customer_id=ada, channel="store"))
    assert await whom(world, ada, "cups") == (None, None)


async def test_what_an_order_was_placed_with_is_stored_encrypted_for_that_order(world: World) -> None:
    await identified(world, "lamps", ADA)
    ((content, name, email),) = await world.rows("SELECT content, buyer_name, buyer_email FROM recipients")
    for stored in (content, name, email):
        assert b"Ada" not in stored
        assert b"ada@" not in stored
    async with world.database.transaction() as tx:
        await tx.db.execute("UPDATE customers SET data_key = NULL")
        ada = (await world.answer("lamps")).customer_id
        question = Question(ada, "order_updates", order_id("lamps"))
        assert await contacts.contacts(tx, world.keyring, [question]) == [None]


async def test_an_order_with_the_old_id_of_a_customer_is_found(world: World, http: httpx2.AsyncClient) -> None:
    ada, old = await identified(world, "lamps", ADA), uuid4()
    async with world.database.transaction() as tx:
        await tx.db.execute("INSERT INTO aliases VALUES ($1, $2)", old, ada)
    params = {"purpose": "order_updates", "order_id": str(order_id("lamps"))}
    assert (await http.get(f"/customers/{old}/contact", params=params)).json()["name"] == "Ada Lovelace"
    wrong = params | {"order_id": "x"}
    assert (await http.get(f"/customers/{old}/contact", params=wrong)).status_code == 422
