"""The service over HTTP: what is commanded, what is read, and the note of who read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx2
import pytest

from services.customer.api import routes
from services.customer.people import Masks
from shared.app import build_app
from shared.auth import Principal
from shared.events.customer import ConsentChanged, CustomerRegistered, TierChanged
from shared.health import Health
from shared.sealing import Buyer
from shared.topics import CUSTOMERS
from tests.postgres.customer.conftest import order_id

if TYPE_CHECKING:
    from tests.postgres.customer.conftest import World

ALICE = Buyer(name="Alice Wonderly", email="alice@home.example", phone="+49 30 555")


class TokensAreScopes:
    """Stands in for the issuer: the token is the list of its scopes."""

    async def principal(self, token: str) -> Principal:
        return Principal("clerk", frozenset(token.split(",")), 0.0)


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    app = build_app("customer", routes(world.database, world.keyring, Masks()), Health())
    app.state.authenticator = TokensAreScopes()
    bearer = {"Authorization": "Bearer customers:read,customers:write,recipients:read"}
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://customer", headers=bearer
    ) as client:
        yield client


async def identified(world: World, order: str, buyer: Buyer = ALICE, **more: Any) -> UUID:
    await world.take(world.sealed(order, buyer, **more))
    return (await world.answer(order)).customer_id


async def test_a_profile_is_read_decrypted_and_the_reading_noted(world: World, http: httpx2.AsyncClient) -> None:
    alice = await identified(world, "lamps")
    answer = await http.get(f"/customers/{alice}")
    assert answer.status_code == 200
    profile = answer.json()
    assert (profile["names"], profile["emails"], profile["phones"]) == (
        ["Alice Wonderly"], ["alice@home.example"], ["+49 30 555"],
    )  # fmt: skip
    assert profile["points"] == {"balance": 0, "held": 0}
    assert await world.rows("SELECT actor, action, customer_id FROM accesses") == [("clerk", "profile", alice)]


@pytest.mark.parametrize(
    "wanted",
    [{"email": " Alice@Home.example"}, {"phone": "0049 (30) 555"}, {"name": "wonderly alice"}, {"name": "WONDERLY"}],
)
async def test_customers_are_found_by_whole_words(
    world: World, http: httpx2.AsyncClient, wanted: dict[str, str]
) -> None:
    alice = await identified(world, "lamps")
    await identified(world, "cups", Buyer(name="Alice Other", email="other@home.example"))
    answer = (await http.get("/customers", params=wanted)).json()
    assert [one["customer_id"] for one in answer["items"]] == [str(alice)]
    assert len(await world.rows("SELECT * FROM accesses")) == 1


async def test_a_search_is_paged_finds_no_parts_and_wants_one_field(world: World, http: httpx2.AsyncClient) -> None:
    made = {str(await identified(world, f"{n}", Buyer(name=f"Alice N{n}"))) for n in range(5)}
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"name": "alice", "limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await http.get("/customers", params=params)).json()
        seen += [one["customer_id"] for one in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == sorted(made)
    assert (await http.get("/customers", params={"name": "alic"})).json()["items"] == []
    refused = await http.get("/customers", params={"name": "a", "email": "b"})
    assert refused.status_code == 422
    assert [one["field"] for one in refused.json()["errors"]] == ["email", "phone", "name"]
    assert (await http.get("/customers")).status_code == 422
    assert (await http.get("/customers", params={"name": "a", "cursor": "x"})).status_code == 422


async def test_orders_and_recipients_of_a_customer(world: World, http: httpx2.AsyncClient) -> None:
    alice = await identified(world, "lamps", note="ring twice")
    await identified(world, "cups")
    first = (await http.get(f"/customers/{alice}/orders", params={"limit": 1})).json()
    rest = (await http.get(f"/customers/{alice}/orders", params={"cursor": first["next"]})).json()
    assert [(one["channel"], one["state"]) for one in first["items"] + rest["items"]] == [("bazaar", "identified")] * 2
    assert rest["next"] is None
    recipient = (await http.get(f"/recipients/{(await world.answer('lamps')).recipient_id}")).json()
    assert (recipient["name"], recipient["city"], recipient["note"]) == ("Zelda Quist", "Ulm", "ring twice")
    actions = [action for (action,) in await world.rows("SELECT action FROM accesses ORDER BY id")]
    assert actions == ["orders", "orders", "recipient"]


async def test_registering_twice_makes_one_customer_whom_orders_find(world: World, http: httpx2.AsyncClient) -> None:
    first = await http.post("/customers", json={"email": "alice@home.example", "name": "Alice"})
    second = await http.post("/customers", json={"email": "Alice@home.example ", "phone": "030 555"})
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["customer_id"] == second.json()["customer_id"] == str(await identified(world, "lamps"))
    ((event, sequence),) = await world.said(CUSTOMERS)
    assert (type(event), event.channel, sequence) == (CustomerRegistered, "store", 1)
    refused = await http.post("/customers", json={"email": "alice"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "email")
    assert "alice" not in refused.text


async def test_tier_and_consents_change_once_and_are_said_in_order(world: World, http: httpx2.AsyncClient) -> None:
    alice = await identified(world, "lamps")
    for _ in range(2):
        assert (await http.put(f"/customers/{alice}/tier", json={"tier": "gold"})).json()["tier"] == "gold"
        consent = {"granted": True, "source": "checkout"}
        assert (await http.put(f"/customers/{alice}/consents/marketing_email", json=consent)).status_code == 200
    withdrawn = {"granted": False, "source": "phone call"}
    assert (await http.put(f"/customers/{alice}/consents/marketing_email", json=withdrawn)).status_code == 422
    withdrawn["source"] = "phone"
    await http.put(f"/customers/{alice}/consents/marketing_email", json=withdrawn)
    said: list[tuple[type[Any], int]] = [(type(event), sequence) for event, sequence in await world.said(CUSTOMERS)]
    assert said == [(CustomerRegistered, 1), (TierChanged, 2), (ConsentChanged, 3), (ConsentChanged, 4)]
    history = (await http.get(f"/customers/{alice}/consents")).json()["items"]
    assert [(one["granted"], one["source"], one["actor"]) for one in history] == [
        (True, "checkout", "clerk"), (False, "phone", "clerk"),
    ]  # fmt: skip
    assert (await http.get(f"/customers/{alice}")).json()["consents"] == {"marketing_email": False}


async def test_goodwill_is_given_once_per_key_and_never_taken_from_what_is_held(
    world: World, http: httpx2.AsyncClient
) -> None:
    alice = await identified(world, "lamps")
    url, goodwill = f"/customers/{alice}/points", {"points": 500, "reason": "Alice's lamp came late"}
    for _ in range(2):
        answer = await http.post(url, json=goodwill, headers={"Idempotency-Key": "sorry-1"})
        assert answer.json()["points"] == {"balance": 500, "held": 0}
    other = await http.post(url, json={**goodwill, "points": 5}, headers={"Idempotency-Key": "sorry-1"})
    assert other.status_code == 409
    await world.take(world.sealed("cups", customer_id=alice, points=300))
    too_much = await http.post(url, json={"points": -201, "reason": "x"}, headers={"Idempotency-Key": "sorry-2"})
    assert (too_much.status_code, too_much.json()["errors"][0]["field"]) == (409, "points")
    less = await http.post(url, json={"points": -200, "reason": "x"}, headers={"Idempotency-Key": "sorry-3"})
    assert less.json()["points"] == {"balance": 0, "held": 300}
    entries = (await http.get(url)).json()["items"]
    assert [(one["kind"], one["points"], one["balance"], one["reason"]) for one in entries] == [
        ("goodwill", 500, 500, "Alice's lamp came late"), ("redeemed", -300, 200, None), ("goodwill", -200, 0, "x"),
    ]  # fmt: skip
    assert await world.rows("SELECT sum(points) FROM points_entries") == [(0,)]
    assert (await http.post(url, json=goodwill)).status_code == 422
    none = await http.post(url, json={"points": 0, "reason": "x"}, headers={"Idempotency-Key": "sorry-4"})
    assert none.json()["errors"][0]["field"] == "points"


async def test_a_guest_gets_no_points(world: World, http: httpx2.AsyncClient) -> None:
    guest = await world.customer(guest=True)
    body, key = {"points": 5, "reason": "x"}, {"Idempotency-Key": "guest"}
    assert (await http.post(f"/customers/{guest}/points", json=body, headers=key)).status_code == 409


async def test_points_of_orders_are_read_page_by_page_with_the_balance_each_left(
    world: World, http: httpx2.AsyncClient
) -> None:
    alice = await world.customer(balance=500)
    await world.take(world.sealed("lamps", customer_id=alice, points=300))
    await world.take(world.cancelled("lamps"), world.sealed("cups", customer_id=alice, points=500))
    await world.take(world.settled("cups", 120))
    seen: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await http.get(f"/customers/{alice}/points", params=params)).json()
        seen += page["items"]
        if (cursor := page["next"]) is None:
            break
    lamps, cups = str(order_id("lamps")), str(order_id("cups"))
    assert [(one["kind"], one["order_id"], one["points"], one["balance"]) for one in seen] == [
        ("goodwill", None, 500, 500), ("redeemed", lamps, -300, 200), ("released", lamps, 300, 500),
        ("redeemed", cups, -500, 0), ("earned", cups, 120, 120),
    ]  # fmt: skip
    assert {(one["reason"], one["actor"]) for one in seen[1:]} == {(None, None)}
    refused = await http.get(f"/customers/{alice}/points", params={"cursor": "x"})
    assert refused.status_code == 422
    states = [one["state"] for one in (await http.get(f"/customers/{alice}/orders")).json()["items"]]
    assert sorted(states) == ["ended", "settled"]


async def test_a_tier_is_shown_with_what_holds_it_up_pinned_and_freed(world: World, http: httpx2.AsyncClient) -> None:
    alice = await identified(world, "lamps")
    url = f"/customers/{alice}/tier"
    assert (await http.get(url)).json() == {
        "customer_id": str(alice), "tier": "base", "pinned": False, "points_of_year": 0, "next_tier": "silver",
        "next_threshold": 500, "falls_at": None, "business_time": None,
    }  # fmt: skip
    await world.take(world.settled("lamps", 600))
    assert (await http.get(url)).json() == {
        "customer_id": str(alice), "tier": "silver", "pinned": False, "points_of_year": 600, "next_tier": "gold",
        "next_threshold": 2000, "falls_at": "2011-12-01T12:00:00Z", "business_time": "2010-12-01T12:00:00Z",
    }  # fmt: skip
    for _ in range(2):
        assert (await http.put(url, json={"tier": "gold"})).json()["pinned"]
    shown = (await http.get(url)).json()
    assert (shown["tier"], shown["pinned"], shown["falls_at"]) == ("gold", True, None)
    for _ in range(2):
        freed = (await http.delete(url)).json()
        assert (freed["tier"], freed["pinned"]) == ("silver", False)
    assert (await http.get(url)).json()["falls_at"] == "2011-12-01T12:00:00Z"
    said = [(event.tier, event.pinned, sequence) for event, sequence in (await world.said(CUSTOMERS))[1:]]
    assert said == [("silver", False, 2), ("gold", True, 3), ("silver", False, 4)]
    assert (await world.rows("SELECT count(*) FROM accesses WHERE action = 'tier'")) == [(4,)]


async def test_an_alias_is_answered_with_the_customer_it_became(world: World, http: httpx2.AsyncClient) -> None:
    alice, old = await identified(world, "lamps"), uuid4()
    async with world.database.transaction() as tx:
        await tx.db.execute("INSERT INTO aliases VALUES ($1, $2)", old, alice)
    profile = (await http.get(f"/customers/{old}")).json()
    assert (profile["customer_id"], profile["aliases"]) == (str(alice), [str(old)])
    assert (await http.put(f"/customers/{old}/tier", json={"tier": "gold"})).json()["customer_id"] == str(alice)


async def test_unknown_ids_and_missing_scopes_are_refused_and_not_noted(world: World, http: httpx2.AsyncClient) -> None:
    nobody = uuid4()
    for path in ("", "/orders", "/points", "/tier", "/consents"):
        assert (await http.get(f"/customers/{nobody}{path}")).status_code == 404
    assert (await http.get(f"/recipients/{nobody}")).status_code == 404
    assert (await http.put(f"/customers/{nobody}/tier", json={"tier": "gold"})).status_code == 404
    assert (await http.delete(f"/customers/{nobody}/tier")).status_code == 404
    alice = await identified(world, "lamps")
    recipient = (await world.answer("lamps")).recipient_id
    clerk = {"Authorization": "Bearer customers:read,customers:write"}
    assert (await http.get(f"/recipients/{recipient}", headers=clerk)).status_code == 403
    stranger = {"Authorization": "Bearer orders:read"}
    assert (await http.get(f"/customers/{alice}", headers=stranger)).status_code == 403
    assert await world.rows("SELECT * FROM accesses") == []
