"""Whether and where customers may be written to, and what they were told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest

from services.customer import contacts
from services.customer.api import routes
from services.customer.people import Masks
from shared.app import build_app
from shared.auth import Principal
from shared.events.notify import CareEvent, CareFailed, CareSent, CareTriggered
from shared.health import Health
from shared.sealing import Buyer
from shared.topics import CARE
from tests.postgres.customer.conftest import NOON, message, order_id

if TYPE_CHECKING:
    from tests.postgres.customer.conftest import World

ALICE = Buyer(name="Alice Wonderly", email="alice@home.example")


class TokensAreScopes:
    """Stands in for the issuer: the token is the list of its scopes."""

    async def principal(self, token: str) -> Principal:
        return Principal("notify", frozenset(token.split(",")), 0.0)


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    app = build_app("customer", routes(world.database, world.keyring, Masks()), Health())
    app.state.authenticator = TokensAreScopes()
    bearer = {"Authorization": "Bearer contacts:read,customers:read,customers:write"}
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://customer", headers=bearer
    ) as client:
        yield client


async def identified(world: World, order: str, buyer: Buyer = ALICE) -> UUID:
    await world.take(world.sealed(order, buyer))
    return (await world.answer(order)).customer_id


async def contact(
    http: httpx2.AsyncClient, customer: UUID, purpose: str = "order_updates", order: str = "lamps"
) -> dict[str, Any]:
    params = {"purpose": purpose, "order_id": str(order_id(order))}
    answer = await http.get(f"/customers/{customer}/contact", params=params)
    assert answer.status_code == 200
    return answer.json()


async def consent(http: httpx2.AsyncClient, customer: UUID, purpose: str, granted: bool) -> None:
    body = {"granted": granted, "source": "checkout"}
    assert (await http.put(f"/customers/{customer}/consents/{purpose}", json=body)).status_code == 200


async def test_the_name_and_address_of_the_order_are_told_and_the_reading_noted(
    world: World, http: httpx2.AsyncClient
) -> None:
    alice = await identified(world, "lamps", Buyer(name="A. W.", email="Alice.W@work.example", channel_id="a1"))
    await identified(world, "cups", Buyer(name="Alice Wonderly", email="alice@home.example", channel_id="a1"))
    assert await contact(http, alice) == {
        "customer_id": str(alice), "name": "A. W.", "email": "Alice.W@work.example", "allowed": True, "reason": None,
    }  # fmt: skip
    noted = await world.rows("SELECT actor, action, customer_id FROM accesses")
    assert noted == [("notify", "contact for order_updates", alice)]


def asked(customer: UUID, purpose: str = "order_updates", order: str | None = None) -> dict[str, Any]:
    return {"customer_id": str(customer), "purpose": purpose, "order_id": str(order_id(order)) if order else None}


async def test_many_are_looked_up_at_once_each_as_if_alone_and_each_reading_noted(
    world: World, http: httpx2.AsyncClient
) -> None:
    alice, bob = await identified(world, "lamps"), await identified(world, "cups", Buyer(email="bob@home.example"))
    shy = await identified(world, "rugs", Buyer(email="shy@home.example"))
    await world.take(world.sealed("gift", Buyer(name="Shy", email="Shy@home.example"), customer_id=bob))
    await consent(http, shy, "order_updates", False)
    await consent(http, bob, "marketing_email", True)
    old, nobody = uuid4(), uuid4()
    async with world.database.transaction() as tx:
        await tx.db.execute("INSERT INTO aliases VALUES ($1, $2)", old, alice)
    questions = [
        asked(bob, "marketing_email"), asked(nobody), asked(alice, order="lamps"), asked(shy), asked(old),
        asked(alice, "marketing_email"), asked(bob, order="cups"), asked(bob, order="gift"), asked(bob, order="lamps"),
    ]  # fmt: skip
    answer = await http.post("/contacts/lookups", json=questions)
    assert answer.status_code == 200
    told = [one and (one["customer_id"], one["name"], one["email"], one["reason"]) for one in answer.json()]
    assert told == [
        (str(bob), None, "bob@home.example", None), None, (str(alice), "Alice Wonderly", "alice@home.example", None),
        (str(shy), None, None, "opted_out"), (str(alice), None, "alice@home.example", None),
        (str(alice), None, None, "no_consent"), (str(bob), None, "bob@home.example", None),
        (str(bob), None, None, "opted_out"),  # shy's own address
        (str(bob), None, "bob@home.example", None),  # alice's order
    ]  # fmt: skip
    noted = await world.rows("SELECT actor, action, customer_id FROM accesses ORDER BY id")
    pairs = zip(questions, answer.json(), strict=True)
    read_of = [(question["purpose"], UUID(one["customer_id"])) for question, one in pairs if one]
    assert noted == [("notify", f"contact for {purpose}", customer) for purpose, customer in read_of]
    singly = [
        await http.get(
            f"/customers/{one['customer_id']}/contact",
            params={name: one[name] for name in ("purpose", "order_id") if one[name]},
        )
        for one in questions
    ]
    assert [one.json() if one.is_success else None for one in singly] == answer.json()


async def test_many_are_looked_up_in_as_many_statements_as_few(
    world: World, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [await identified(world, f"o{n}", Buyer(email=f"p{n}@home.example")) for n in range(6)]
    statements: list[str] = []
    fetch = asyncpg.Connection.fetch

    async def counted(self: Any, query: str, *arguments: Any, **more: Any) -> Any:
        statements.append(query)
        return await fetch(self, query, *arguments, **more)

    monkeypatch.setattr(asyncpg.Connection, "fetch", counted)
    counts: list[int] = []
    for some in (people[:1], people):
        statements.clear()
        answer = await http.post("/contacts/lookups", json=[asked(one) for one in some])
        assert [one["email"] for one in answer.json()] == [f"p{n}@home.example" for n in range(len(some))]
        counts.append(len(statements))
    assert counts == [3, 3]


async def test_lookups_need_their_scope_and_are_limited(world: World, http: httpx2.AsyncClient) -> None:
    alice = await identified(world, "lamps")
    only = {"Authorization": "Bearer customers:read"}
    assert (await http.post("/contacts/lookups", json=[asked(alice)], headers=only)).status_code == 403
    for body in ([], [asked(alice)] * 201, [asked(alice, "Any thing")], [{"customer_id": str(alice)}]):
        assert (await http.post("/contacts/lookups", json=body)).status_code == 422
    assert await world.rows("SELECT * FROM accesses") == []
    assert len((await http.post("/contacts/lookups", json=[asked(alice)] * 200)).json()) == 200
    assert len(await world.rows("SELECT * FROM accesses")) == 200


async def test_order_updates_are_allowed_until_withdrawn(world: World, http: httpx2.AsyncClient) -> None:
    alice = await identified(world, "lamps")
    assert (await contact(http, alice))["allowed"]
    await consent(http, alice, "order_updates", False)
    assert await contact(http, alice) == {
        "customer_id": str(alice), "name": None, "email": None, "allowed": False, "reason": "opted_out",
    }  # fmt: skip
    await consent(http, alice, "order_updates", True)
    assert (await contact(http, alice))["email"] == "alice@home.example"


@pytest.mark.parametrize("purpose", ["marketing_email", "surveys"])
async def test_every_other_purpose_needs_a_consent_that_was_given(
    world: World, http: httpx2.AsyncClient, purpose: str
) -> None:
    alice = await identified(world, "lamps")
    said = [await contact(http, alice, purpose)]
    for granted in (True, False):
        await consent(http, alice, purpose, granted)
        said.append(await contact(http, alice, purpose))
    assert [(one["allowed"], one["reason"], one["email"]) for one in said] == [
        (False, "no_consent", None), (True, None, "alice@home.example"), (False, "opted_out", None),
    ]  # fmt: skip


async def test_somebody_without_an_address_is_told_as_such(world: World, http: httpx2.AsyncClient) -> None:
    nobody = await world.customer()
    said = await contact(http, nobody)
    assert (said["name"], said["email"], said["allowed"]) == (None, None, True)


async def test_an_alias_is_answered_with_the_customer_it_became(world: World, http: httpx2.AsyncClient) -> None:
    alice, old = await identified(world, "lamps"), uuid4()
    async with world.database.transaction() as tx:
        await tx.db.execute("INSERT INTO aliases VALUES ($1, $2)", old, alice)
    assert await contact(http, old) == await contact(http, alice)
    await hear(world, CareTriggered(occurred_at=NOON, order_id=order_id("x"), trigger="parcel_late", customer_id=old))
    for id_ in (alice, old):
        assert [one["trigger"] for one in await told(http, id_)] == ["parcel_late"]


async def test_unknown_ids_missing_scopes_and_odd_purposes_are_refused_and_not_noted(
    world: World, http: httpx2.AsyncClient
) -> None:
    alice, purpose = await identified(world, "lamps"), {"purpose": "order_updates"}
    assert (await http.get(f"/customers/{uuid4()}/contact", params=purpose)).status_code == 404
    assert (await http.get(f"/customers/{uuid4()}/contacts")).status_code == 404
    assert (await http.get(f"/customers/{alice}/contact")).status_code == 422
    assert (await http.get(f"/customers/{alice}/contact", params={"purpose": "Any thing"})).status_code == 422
    assert (await http.get(f"/customers/{alice}/contacts", params={"cursor": "x"})).status_code == 422
    only = {"Authorization": "Bearer customers:read"}
    assert (await http.get(f"/customers/{alice}/contact", params=purpose, headers=only)).status_code == 403
    other = {"Authorization": "Bearer contacts:read"}
    assert (await http.get(f"/customers/{alice}/contacts", headers=other)).status_code == 403
    assert await world.rows("SELECT * FROM accesses") == []


def triggered(order: str, trigger: str, customer: UUID | None) -> CareTriggered:
    return CareTriggered(occurred_at=NOON, order_id=order_id(order), trigger=trigger, customer_id=customer)


def sent(order: str, trigger: str, customer: UUID) -> CareSent:
    return CareSent(
        occurred_at=NOON, order_id=order_id(order), trigger=trigger, customer_id=customer, template=trigger
    )  # fmt: skip


def failed(order: str, trigger: str, customer: UUID | None, reason: str) -> CareFailed:
    return CareFailed(
        occurred_at=NOON, order_id=order_id(order), trigger=trigger, customer_id=customer, reason=reason
    )  # fmt: skip


async def hear(world: World, *events: CareEvent) -> None:
    async with world.database.transaction() as tx:
        await contacts.note_contacts(tx, [message(CARE, event) for event in events])


async def told(http: httpx2.AsyncClient, customer: UUID) -> list[dict[str, Any]]:
    return (await http.get(f"/customers/{customer}/contacts")).json()["items"]


async def history(http: httpx2.AsyncClient, customer: UUID) -> list[tuple[str, str, str | None, str | None]]:
    return [(one["trigger"], one["state"], one["reason"], one["channel"]) for one in await told(http, customer)]


async def test_what_a_customer_was_told_is_kept_in_one_batch_or_in_many(world: World, http: httpx2.AsyncClient) -> None:
    alice, bob = await world.customer(), await world.customer()
    for customer, name in ((alice, "lamps"), (bob, "cups")):
        life = [
            triggered(name, "order_confirmed", customer), sent(name, "order_confirmed", customer),
            triggered(name, "thank_you", customer), failed(name, "thank_you", customer, "opted_out"),
            triggered(name, "parcel_late", customer),
        ]  # fmt: skip
        if customer == alice:
            await hear(world, *life, *life)
        else:
            for event in [twice for one in life for twice in (one, one)]:
                await hear(world, event)
        assert sorted(await history(http, customer)) == [
            ("order_confirmed", "sent", None, "email"), ("parcel_late", "triggered", None, None),
            ("thank_you", "failed", "opted_out", None),
        ]  # fmt: skip


async def test_a_late_event_changes_nothing(world: World, http: httpx2.AsyncClient) -> None:
    alice = await world.customer()
    await hear(world, sent("lamps", "thank_you", alice))
    await hear(world, triggered("lamps", "thank_you", alice))
    await hear(world, failed("lamps", "thank_you", alice, "unknown"))
    await hear(world, failed("cups", "thank_you", alice, "unknown"), triggered("cups", "thank_you", alice))
    assert await history(http, alice) == [
        ("thank_you", "sent", None, "email"), ("thank_you", "failed", "unknown", None),
    ]  # fmt: skip


async def test_a_buyer_who_becomes_known_gets_their_history(world: World, http: httpx2.AsyncClient) -> None:
    alice = await world.customer()
    await hear(world, triggered("lamps", "order_refused", None))
    assert await history(http, alice) == []
    await hear(world, sent("lamps", "order_refused", alice))
    await hear(world, triggered("cups", "order_refused", alice), failed("cups", "order_refused", None, "no_address"))
    assert [state for _, state, _, _ in await history(http, alice)] == ["sent", "failed"]


async def test_the_history_is_paged_and_its_reading_noted(world: World, http: httpx2.AsyncClient) -> None:
    alice = await world.customer()
    await hear(world, *(triggered(f"order {n}", "order_confirmed", alice) for n in range(5)))
    seen: list[str] = []
    cursor: str | None = None
    while cursor is not None or not seen:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await http.get(f"/customers/{alice}/contacts", params=params)).json()
        seen += [one["order_id"] for one in page["items"]]
        cursor = page["next"]
    assert sorted(seen) == sorted(str(order_id(f"order {n}")) for n in range(5))
    assert await world.rows("SELECT DISTINCT action, customer_id FROM accesses") == [("contacts", alice)]
