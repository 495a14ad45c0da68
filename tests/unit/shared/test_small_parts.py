"""The small parts that everything rests on: traces, cursors, the brake, sealed boxes, problems, idempotency."""

from __future__ import annotations

import base64
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI, Query
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.public import PrivateKey
from pydantic import BaseModel

from shared import idempotency, paging, problems
from shared.brake import LIMIT, WINDOW, Brake, BrakedError
from shared.commands import command_cause
from shared.problems import Problem
from shared.sealing import Buyer, Recipient, SealedBuyer, UnreadableError, seal, unseal
from shared.tracing import Trace
from tests.support.http import client_of

KEY = PrivateKey(b"k" * 32)
ANNA = SealedBuyer(
    order_id=UUID(int=1), buyer=Buyer(name="Anna Ash"),
    recipient=Recipient(name="Anna Ash", street="Elm Row 1", city="Ulm", country="DE"),
)  # fmt: skip


def sealed(content: SealedBuyer = ANNA) -> str:
    return seal(base64.b64encode(bytes(KEY.public_key)).decode(), content)


# -- traces ------------------------------------------------------------------------------------------------------------


def test_a_trace_goes_on_with_a_span_of_its_own():
    trace = Trace.parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
    child = trace.child()
    assert (child.trace_id, child.flags) == (trace.trace_id, "00")
    assert child.span_id != trace.span_id
    assert Trace.parse(str(trace)) == trace


@pytest.mark.parametrize(
    "header",
    [
        None, "", "nonsense", "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c",
    ],
)  # fmt: skip
def test_a_malformed_trace_starts_a_new_one(header: str | None):
    one, two = Trace.parse(header), Trace.parse(header)
    assert one.trace_id != two.trace_id
    assert Trace.parse(str(one)) == one


# -- the brake ---------------------------------------------------------------------------------------------------------


def test_the_brake_lets_a_healthy_share_of_dead_letters_pass():
    brake = Brake("test")
    for _ in range(100):
        brake.check(1)
        brake.count(good=499, bad=1)
    assert not brake.on


def test_the_brake_holds_when_too_many_were_set_aside_and_not_a_message_later():
    brake = Brake("test")
    for _ in range(LIMIT):
        brake.check(1)
        brake.count(good=0, bad=1)
    with pytest.raises(BrakedError):
        brake.check(1)
    assert brake.on


def test_what_was_set_aside_long_ago_is_forgotten():
    brake = Brake("test")
    brake.count(good=0, bad=LIMIT)
    brake.count(good=WINDOW, bad=0)
    brake.check(1)


# -- cursors -----------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=80)
    | st.integers(-(2**53), 2**53)
    | st.none()
)
def test_a_cursor_comes_out_as_it_went_in(position: str | int | None):
    assert paging.decode(paging.encode(position), 1) == [position]


@given(st.text(max_size=50))
def test_a_made_up_cursor_is_refused_or_read_but_never_an_accident(cursor: str):
    try:
        position = paging.decode(cursor, 1)
        assert position is not None
        assert len(position) == 1
    except Problem as problem:
        refused = (problem.status, problem.errors[0]["field"])
    else:
        refused = (422, "cursor")
    assert refused == (422, "cursor")


# -- sealed boxes ------------------------------------------------------------------------------------------------------


def test_a_sealed_buyer_is_readable_with_the_private_key_only():
    assert unseal(bytes(KEY), sealed(), ANNA.order_id) == ANNA
    assert "Anna" not in sealed()
    with pytest.raises(UnreadableError):
        unseal(b"x" * 32, sealed(), ANNA.order_id)


def test_a_sealed_buyer_belongs_to_its_order():
    with pytest.raises(UnreadableError, match="another order"):
        unseal(bytes(KEY), sealed(), UUID(int=2))


@pytest.mark.parametrize("changed", ["", "nonsense", "AAAA", sealed()[:-8] + "AAAAAAA=", sealed()[4:]])
def test_a_box_that_was_changed_is_unreadable(changed: str):
    with pytest.raises(UnreadableError):
        unseal(bytes(KEY), changed, ANNA.order_id)


def test_the_same_buyer_sealed_twice_cannot_be_recognised():
    assert sealed() != sealed()


# -- problems ----------------------------------------------------------------------------------------------------------


class Lamp(BaseModel):
    sku: str
    units: int


async def lamp(lamps: list[Lamp], shade: int = Query()) -> None:
    if shade == 13:
        raise Problem(409, "Out of lamps", code="no_lamps", headers={"Retry-After": "1"})
    if shade == 14:
        raise ConnectionResetError("the database is away")
    raise KeyError("Anna Ash")


@pytest.fixture
def shop() -> FastAPI:
    app = FastAPI()
    app.add_api_route("/lamps", lamp, methods=["POST"])
    problems.install(app)
    return app


async def test_a_problem_names_every_field_and_echoes_no_input(shop: FastAPI):
    async with client_of(shop) as client:
        answer = await client.post("/lamps", json=[{"sku": "RED-LAMP", "units": "Anna Ash"}, {"units": 1}])
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert {one["field"] for one in answer.json()["errors"]} == {"0.units", "1.sku", "shade"}
    assert "Ash" not in answer.text


@pytest.mark.parametrize(("shade", "status"), [(13, 409), (14, 503), (15, 500)])
async def test_every_error_is_a_problem_and_ours_says_nothing_of_its_cause(shop: FastAPI, shade: int, status: int):
    async with client_of(shop) as client:
        answer = await client.post("/lamps", json=[], params={"shade": shade})
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Ash" not in answer.text
    assert ("Retry-After" in answer.headers) == (status != 500)


async def test_a_database_that_is_away_does_not_cost_the_client_its_connection(shop: FastAPI):
    """What the server hears of as an exception, it answers and then closes the connection, unannounced."""
    transport = httpx2.ASGITransport(app=shop, raise_app_exceptions=True)
    async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as client:
        assert (await client.post("/lamps", json=[], params={"shade": 14})).status_code == 503
        with pytest.raises(KeyError):
            await client.post("/lamps", json=[], params={"shade": 15})


async def test_malformed_json_unknown_paths_and_methods_are_problems_too(shop: FastAPI):
    async with client_of(shop) as client:
        malformed = await client.post("/lamps?shade=1", content=b"{", headers={"Content-Type": "application/json"})
        answers = [malformed, await client.get("/nowhere"), await client.get("/lamps")]
    assert [answer.status_code for answer in answers] == [400, 404, 405]
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}


# -- commands ----------------------------------------------------------------------------------------------------------


def test_a_command_is_a_cause_of_its_own():
    assert command_cause().id != command_cause().id
    assert command_cause("order 1").correlation_id == "order 1"


def test_a_fingerprint_tells_bodies_apart_and_knows_the_same_one():
    one, same, other = Lamp(sku="RED-LAMP", units=1), Lamp(units=1, sku="RED-LAMP"), Lamp(sku="RED-LAMP", units=2)
    assert idempotency.fingerprint(one) == idempotency.fingerprint(same) != idempotency.fingerprint(other)
