"""Dead letters that are applied after all: at most once, alone with their consumer, and nothing when refused again."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from bench.evidence import KERNEL, Evidence
from bench.invariants import i8_effect, i9_account
from deploy.local.stack import Stack
from services.inventory.handlers import hold_stock
from shared.app import build_app
from shared.consume import Consumers, Handle, Subscription
from shared.events.order import OrderCancelled, OrderEvent
from shared.health import Health
from shared.kafka import create_topics
from shared.messages import Batch
from shared.operations import api
from shared.operations.letters import DeadLetter, parse
from shared.operations.redrive import NoConsumerError, Redriver, RefusedError
from shared.postgres import Database, Tx
from shared.relay import Relay
from shared.topics import ORDERS, dead_letters
from tests.support.databases import url_of
from tests.support.http import Issuer, client_of
from tests.support.kernel import FakeRecord, Fed, record, rows, said, value
from tests.support.orders import NOW, order_id, placed


class Moody:
    """Notes down the orders it is told of, and fails while it is in a bad mood."""

    def __init__(self) -> None:
        self.bad, self.told = True, 0
        self.begun, self.waits = asyncio.Event(), asyncio.Event()
        self.waits.set()

    async def note(self, tx: Tx, batch: Batch[OrderEvent]) -> None:
        self.told += 1
        for message in batch:
            await tx.db.execute("INSERT INTO holds VALUES ($1, 'held', 1)", message.event.order_id)
        self.begun.set()
        await self.waits.wait()
        if self.bad:
            raise ValueError("I am in a bad mood")


def redriver(database: Database, handle: Handle[Any], name: str = "fed") -> Redriver:
    return Redriver(Consumers([Subscription(name, [ORDERS], handle)]), database)


class Lying(FakeRecord):
    """A record as it lies in the dead-letter topic."""

    timestamp = int(NOW.timestamp() * 1000)


async def letters(database: Database) -> list[DeadLetter]:
    """What the outbox holds for the dead-letter topic, as it would lie there."""
    found = await rows(database, "SELECT * FROM outbox WHERE type = 'dead-letter' ORDER BY position")
    return [
        parse(
            Lying("dead", number, row["aggregateid"].encode(), row["payload"],
                  [(name, base64.b64decode(text)) for name, text in row["headers"]]),
            "test",
        )
        for number, row in enumerate(found)
    ]  # fmt: skip


async def put_aside(database: Database, moody: Moody, *records: FakeRecord) -> list[DeadLetter]:
    loop = await Fed(database, moody.note, [ORDERS]).start()
    await loop.take(*records)
    return await letters(database)


async def counts(database: Database) -> dict[str, int]:
    (row,) = await rows(database, "SELECT * FROM consumer_offsets WHERE partition = 0")
    names = ("applied", "duplicate", "skipped", "dead_lettered", "redriven")
    return {name: row[name] for name in names if row[name]}


async def accounted(database: Database) -> None:
    """Every message is accounted for, and as many were applied as are marked."""
    kernel = {name: [dict(row) for row in await rows(database, query)] for name, query in KERNEL.items()}
    none: dict[str, list[dict[str, Any]]] = {"holds": [], "order_prices": [], "offsets": []}
    tables = {"test": kernel, "inventory": none | {"inbox": []}, "pricing": none | {"inbox": []}}
    for finding in (i8_effect(Evidence(tables, [], [])), i9_account(Evidence(tables, [], []))):
        assert finding.held, finding.broken


async def test_a_dead_letter_is_applied_once_however_often_it_is_redriven(database: Database):
    moody = Moody()
    (letter,) = await put_aside(database, moody, record(ORDERS, placed(), 0))
    await accounted(database)
    moody.bad = False
    own = redriver(database, moody.note)
    assert [await own.redrive(letter, "olga") for _ in range(3)] == ["applied", "already_applied", "already_applied"]
    assert [row["order_id"] for row in await rows(database, "SELECT order_id FROM holds")] == [order_id()]
    assert await counts(database) == {"dead_lettered": 1, "redriven": 1}
    await accounted(database)
    (done,) = await rows(database, "SELECT consumer, event_id, letter, outcome, redriven_by FROM redrives")
    assert tuple(done) == ("fed", letter.event_id, 0, "applied", "olga")


async def test_two_operators_at_once_apply_it_once(database: Database):
    moody = Moody()
    (letter,) = await put_aside(database, moody, record(ORDERS, placed(), 0))
    moody.bad = False
    moody.told = 0
    outcomes = await asyncio.gather(*(redriver(database, moody.note).redrive(letter, "olga") for _ in range(5)))
    assert sorted(outcomes) == ["already_applied"] * 4 + ["applied"]
    assert moody.told == 1
    await accounted(database)


async def test_a_handler_that_fails_again_changes_nothing(database: Database):
    moody = Moody()
    (letter,) = await put_aside(database, moody, record(ORDERS, placed(), 0))
    own = redriver(database, moody.note)
    with pytest.raises(RefusedError, match="ValueError: I am in a bad mood"):
        await own.redrive(letter, "olga")
    assert await value(database, "SELECT count(*) FROM holds") == 0
    assert await value(database, "SELECT count(*) FROM inbox") == 0
    assert await value(database, "SELECT count(*) FROM redrives") == 0
    moody.bad = False
    assert await own.redrive(letter, "olga") == "applied"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"ce_id": None}, "header 'ce_id' is missing"),
        ({"ce_time": b"yesterday"}, "unreadable header"),
        ({"ce_type": b"stranger.Happened.v1"}, "type stranger.Happened.v1"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_its_reason(
    database: Database, headers: dict[str, bytes | None], reason: str
):
    moody = Moody()
    (letter,) = await put_aside(database, moody, record(ORDERS, placed(), 0, headers=headers))
    assert reason in letter.reason
    with pytest.raises(RefusedError, match=reason):
        await redriver(database, moody.note).redrive(letter, "olga")
    assert moody.told == 0
    await accounted(database)


async def test_the_record_is_what_it_was_byte_for_byte(database: Database):
    strange = record(ORDERS, placed(), 0)
    strange.headers = [*strange.headers, ("dlq_reason", b"\xff"), ("twice", b"1"), ("twice", b"2")]
    strange.value = b"\xff\x00{"
    (letter,) = await put_aside(database, Moody(), strange)
    original = letter.original
    assert (original.topic, original.partition, original.offset) == (ORDERS.name, 0, 0)
    assert (original.key, original.value, original.headers) == (strange.key, strange.value, strange.headers)


async def test_a_repeat_that_was_applied_meanwhile_is_not_applied_again(database: Database):
    moody, once = Moody(), uuid4()
    loop = await Fed(database, moody.note, [ORDERS]).start()
    await loop.take(record(ORDERS, placed(), 0, id=once))
    moody.bad = False
    await loop.take(record(ORDERS, placed(), 1, id=once))  # the relay's own repeat
    (letter,) = await letters(database)
    assert await redriver(database, moody.note).redrive(letter, "olga") == "already_applied"
    assert await counts(database) == {"applied": 1, "dead_lettered": 1}
    await accounted(database)


async def test_it_stays_applied_when_the_inbox_has_forgotten_it(database: Database):
    moody = Moody()
    long_ago = datetime.now(UTC) - timedelta(days=30)
    (letter,) = await put_aside(database, moody, record(ORDERS, placed(), 0, at=long_ago))
    moody.bad = False
    own = redriver(database, moody.note)
    assert await own.redrive(letter, "olga") == "applied"
    async with database.transaction() as tx:
        await tx.db.execute("SELECT roll_inbox(7)")
    assert await value(database, "SELECT count(*) FROM inbox") == 0
    assert await own.redrive(letter, "olga") == "already_applied"


async def test_an_infrastructure_error_passes_through_and_it_can_be_redriven_then(database: Database):
    moody = Moody()
    (letter,) = await put_aside(database, moody, record(ORDERS, placed(), 0))

    async def cut_off(tx: Tx, batch: Batch[OrderEvent]) -> None:
        await moody.note(tx, batch)
        raise ConnectionResetError("gone")

    moody.bad = False
    with pytest.raises(ConnectionResetError):
        await redriver(database, cut_off).redrive(letter, "olga")
    assert await redriver(database, moody.note).redrive(letter, "olga") == "applied"
    await accounted(database)


async def test_what_this_database_has_not_read_yet_is_left_to_its_consumer(database: Database):
    moody = Moody()
    (letter,) = await put_aside(database, moody, record(ORDERS, placed(), 0))
    async with database.transaction() as tx:  # as after a restore
        await tx.db.execute("UPDATE consumer_offsets SET next_offset = 0, dead_lettered = 0")
    moody.bad = False
    with pytest.raises(RefusedError, match="will apply it itself"):
        await redriver(database, moody.note).redrive(letter, "olga")
    assert await value(database, "SELECT count(*) FROM holds") == 0


async def test_a_consumer_that_is_gone_cannot_apply_it(database: Database):
    moody = Moody()
    (letter,) = await put_aside(database, moody, record(ORDERS, placed(), 0))
    with pytest.raises(NoConsumerError, match="no consumer fed"):
        await redriver(database, moody.note, "another").redrive(letter, "olga")


async def test_a_redrive_waits_for_the_batch_under_way_and_sees_what_it_did(database: Database):
    """Both act on one order, of which neither finds a row unless the other has ended: else one's row is overwritten."""
    moody = Moody()
    (letter,) = await put_aside(database, moody, record(ORDERS, placed(), 0))
    async with database.transaction() as tx:
        await tx.db.execute("INSERT INTO warehouses VALUES ('BER', 'Berlin', 'DE', 1)")
        await tx.db.execute("""INSERT INTO items (sku, name, unit, tax_class, active)
                               VALUES ('RED-LAMP', '', '', '', true), ('BLUE-CUP', '', '', '', true)""")
        await tx.db.execute("INSERT INTO stock VALUES ('RED-LAMP', 'BER', 10), ('BLUE-CUP', 'BER', 10)")
    half_way, go_on = asyncio.Event(), asyncio.Event()

    async def cancelling(tx: Tx, batch: Batch[OrderEvent]) -> None:
        await hold_stock(tx, batch)
        half_way.set()
        await go_on.wait()

    loop = await Fed(database, cancelling, [ORDERS]).start()
    ended = record(ORDERS, OrderCancelled(occurred_at=NOW, order_id=order_id()), 1, sequence=2)
    batch = asyncio.create_task(loop.take(ended))
    await half_way.wait()
    redriving = asyncio.create_task(redriver(database, hold_stock).redrive(letter, "olga"))
    _, waiting = await asyncio.wait([redriving], timeout=0.3)
    go_on.set()
    await batch
    assert await redriving == "applied"
    assert waiting
    assert [tuple(row) for row in await rows(database, "SELECT state FROM holds")] == [("released",)]
    assert await value(database, "SELECT count(*) FROM hold_lines") == 0
    assert "StockHeld" not in [type_ for type_, _, _ in await said(database)]
    await accounted(database)


async def test_a_batch_waits_for_the_redrive_under_way(database: Database):
    moody = Moody()
    (letter,) = await put_aside(database, moody, record(ORDERS, placed(), 0))
    loop = await Fed(database, moody.note, [ORDERS]).start()
    moody.bad, moody.told = False, 0
    moody.waits.clear()
    moody.begun.clear()
    redriving = asyncio.create_task(redriver(database, moody.note).redrive(letter, "olga"))
    await moody.begun.wait()
    batch = asyncio.create_task(loop.take(record(ORDERS, placed(number=2), 1)))
    await asyncio.sleep(0.3)
    told = moody.told
    moody.waits.set()
    assert await redriving == "applied"
    await batch
    assert (told, moody.told) == (1, 2)


# Over HTTP, from a topic


@asynccontextmanager
async def desk(
    database: Database, stack: Stack, moody: Moody, scope: str = "admin"
) -> AsyncGenerator[tuple[httpx2.AsyncClient, Fed, Relay]]:
    """An operator's client of a service of its own, whose relay is at work."""
    service = f"test{uuid4().hex[:12]}"
    await create_topics(stack.bootstrap_servers, [dead_letters(service)])
    loop = await Fed(database, moody.note, [ORDERS], service=service).start()
    relay = Relay(url_of(database), stack.bootstrap_servers, Health())
    issuer = Issuer()
    own = Consumers([Subscription("fed", [ORDERS], moody.note)])
    app = build_app(
        service, [api.routes(service, "test-0", own, database, stack.bootstrap_servers, relay)], Health()
    )  # fmt: skip
    app.state.authenticator = issuer.authenticator()
    task = asyncio.create_task(relay.run())
    try:
        async with client_of(app, issuer.token(scope, sub="olga")) as client:
            yield client, loop, relay
    finally:
        relay.stop()
        await asyncio.wait_for(task, 10)


async def relayed(database: Database) -> None:
    for _ in range(200):
        if not await value(database, "SELECT count(*) FROM outbox"):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the outbox is not empty")


async def test_an_operator_finds_a_dead_letter_and_has_it_applied(database: Database, infrastructure: Stack):
    moody = Moody()
    async with desk(database, infrastructure, moody) as (client, loop, _):
        poison = record(ORDERS, placed(number=9), 1, headers={"ce_id": None})
        poison.value = b"\xff{"
        id_ = uuid4()
        await loop.take(record(ORDERS, placed(), 0, id=id_), poison)
        await relayed(database)
        first = (await client.get("/admin/dlq", params={"limit": 1})).json()
        second = (await client.get("/admin/dlq", params={"limit": 1, "cursor": first["next"]})).json()
        (newest,), (oldest,) = first["items"], second["items"]
        assert (newest["offset"], newest["key"], newest["event_id"]) == (1, str(order_id(9)), None)
        assert newest["reason"].startswith("invalid OrderPlaced")
        assert "payload" not in newest
        assert (oldest["offset"], oldest["consumer"], oldest["state"]) == (0, "fed", "waiting")
        assert (oldest["topic"], oldest["partition"], oldest["origin_offset"]) == (ORDERS.name, 0, 0)
        assert (oldest["event_id"], oldest["type"]) == (str(id_), "isthmus.order.OrderPlaced.v1")
        shown = (await client.get("/admin/dlq/0")).json()
        assert shown["payload"]["text"].encode() == record(ORDERS, placed(), 0).value
        assert "dlq_reason" not in [one["name"] for one in shown["headers"]]
        assert (await client.get("/admin/dlq/1")).json()["payload"] == {
            "text": None, "base64": base64.b64encode(b"\xff{").decode()
        }  # fmt: skip

        refused = await client.post("/admin/dlq/0/redrive")
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:isthmus:problem:not_redrivable")
        assert "bad mood" in refused.json()["detail"]
        moody.bad = False
        answers = [await client.post("/admin/dlq/0/redrive") for _ in range(2)]
        assert [one.json() for one in answers] == [{"outcome": "applied"}, {"outcome": "already_applied"}]
        done = (await client.get("/admin/dlq/0")).json()
        assert (done["state"], done["redriven"]["by"], done["redriven"]["outcome"]) == ("redriven", "olga", "applied")
        assert (await client.post("/admin/dlq/2/redrive")).status_code == 404
        assert (await client.get("/admin/dlq", params={"cursor": "x"})).status_code == 422


async def test_all_that_wait_are_applied_and_a_key_stops_at_its_first_failure(
    database: Database, infrastructure: Stack
):
    moody = Moody()
    async with desk(database, infrastructure, moody) as (client, loop, _):
        cancelled = OrderCancelled(occurred_at=NOW, order_id=order_id(2))
        poison = record(ORDERS, placed(number=2), 1, headers={"ce_id": None})
        await loop.take(record(ORDERS, placed(), 0), poison, record(ORDERS, cancelled, 2, sequence=2),
                        record(ORDERS, placed(number=3), 3), record(ORDERS, placed(number=4), 4))  # fmt: skip
        await relayed(database)
        moody.bad = False
        none = (await client.post("/admin/dlq/redrive", json={"consumer": "another"})).json()
        assert (none["applied"], none["failed"]) == (0, 0)
        some = (await client.post("/admin/dlq/redrive", json={"type": "OrderPlaced", "limit": 2})).json()
        assert (some["applied"], some["failed"], some["more"]) == (2, 1, True)
        rest = (await client.post("/admin/dlq/redrive", json={})).json()
        assert [one["offset"] for one in rest.pop("failures")] == [1]
        assert rest == {"applied": 1, "already_applied": 0, "failed": 1, "held_back": 1, "more": False}
        assert (await client.post("/admin/dlq/redrive", json={"reason": "bad mood"})).json()["applied"] == 1
        assert await counts(database) == {"dead_lettered": 5, "redriven": 4}
        await accounted(database)


async def test_the_outbox_shows_what_waits_and_who_relays(database: Database, infrastructure: Stack):
    async with desk(database, infrastructure, Moody()) as (client, _, relay):
        async with database.transaction() as tx:
            await tx.dead_letter("test.no-such-topic.v1", "k", b"", [], uuid4())
        for _ in range(100):
            if relay.blocked:
                break
            await asyncio.sleep(0.1)
        shown = (await client.get("/admin/outbox/status")).json()
        assert (shown["rows"], [one["topic"] for one in shown["topics"]]) == (1, ["test.no-such-topic.v1"])
        assert shown["oldest_seconds"] >= shown["topics"][0]["oldest_seconds"] > 0
        (blocked,) = shown["relay"].pop("blocked")
        assert (blocked["topic"], blocked["key"]) == ("test.no-such-topic.v1", "*")
        assert "no such topic" in blocked["reason"]
        assert shown["relay"] == {"replica": "test-0", "active": True, "running": True}
        async with database.transaction() as tx:
            await tx.db.execute("DELETE FROM outbox")


async def test_a_replica_that_is_not_the_relay_says_whether_there_is_one(database: Database):
    issuer = Issuer()
    idle = Relay(url_of(database), "", Health())
    app = build_app("test", [api.routes("test", "test-1", Consumers(), database, "", idle)], Health())
    app.state.authenticator = issuer.authenticator()
    async with client_of(app, issuer.token("admin")) as client:
        shown = (await client.get("/admin/outbox/status")).json()
        assert shown["relay"] == {"replica": "test-1", "active": False, "running": False, "blocked": None}
        async with database.reading() as db:
            assert await db.fetchval("SELECT pg_try_advisory_lock(hashtext('isthmus.relay'))")
            shown = (await client.get("/admin/outbox/status")).json()
        assert shown["relay"]["running"]
    async with client_of(app, issuer.token("orders:read")) as client:
        assert (await client.get("/admin/outbox/status")).status_code == 403


async def test_dead_letters_are_not_found_while_kafka_is_away(database: Database):
    issuer = Issuer()
    relay = Relay(url_of(database), "", Health())
    app = build_app("test", [api.routes("test", "", Consumers(), database, "127.0.0.1:9", relay)], Health())
    app.state.authenticator = issuer.authenticator()
    async with client_of(app, issuer.token("admin")) as client:
        for answer in (await client.get("/admin/dlq"), await client.post("/admin/dlq/redrive", json={})):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
