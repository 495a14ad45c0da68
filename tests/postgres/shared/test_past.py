"""A database that is older than the log is told from one that is not, whatever else lies in the log."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.local.stack import Stack
from shared import relay as relay_module
from shared.envelope import headers_for
from shared.health import Health
from shared.kafka import Place, acknowledged_at, bounds, read_all
from shared.migrate import migrate
from shared.past import BehindError, Past
from shared.postgres import Database
from shared.relay import Relay
from tests.support.databases import Databases, url_of
from tests.support.kernel import rows, value
from tests.support.speaker import Speaker, eventually, until_empty

MIGRATIONS = Path(__file__).resolve().parents[3] / "services" / "inventory" / "migrations"


@pytest.fixture
async def speaker(infrastructure: Stack, databases: Databases) -> Speaker:
    return await Speaker.new(infrastructure.bootstrap_servers, databases)


async def relayed(database: Database) -> dict[Place, int]:
    found = await rows(database, "SELECT topic, partition, next_offset FROM relayed")
    return {(row["topic"], row["partition"]): row["next_offset"] for row in found}


def headers(speaker: Speaker, **other: str) -> list[tuple[str, bytes]]:
    own = headers_for(
        id=uuid4(), source=speaker.topic.source, type=f"isthmus.{speaker.name}.OrderPlaced.v1", key="1", sequence=1,
        recorded_at=datetime.now(UTC), correlation_id="test", causation_id=None, traceparent="",
    )  # fmt: skip
    return list((dict(own) | {name: text.encode() for name, text in other.items()}).items())


# -- well --------------------------------------------------------------------------------------------------------------


async def test_what_was_acknowledged_is_noted_up_to_the_end_of_the_log(speaker: Speaker, database: Database):
    await speaker.sent(database, *range(1, 30))
    await speaker.sent(database, *range(30, 40))
    ends = {place: end for place, (_, end) in (await bounds(speaker.kafka, [speaker.topic.name])).items()}
    assert await relayed(database) == {place: end for place, end in ends.items() if end}
    assert sum(ends.values()) == 39
    await speaker.check(database)


async def test_a_crash_between_sending_and_deleting_is_no_sign(
    speaker: Speaker, database: Database, monkeypatch: pytest.MonkeyPatch
):
    await speaker.sent(database, 1, 2)
    ids = await speaker.say(database, 3, 4, 5)
    with monkeypatch.context() as patch:
        patch.setattr(relay_module, "SENT", relay_module.SENT.replace("ANY($1::bigint[])", "ANY($1) AND 1 / 0 = 1"))

        async def sent() -> bool:
            return len(await read_all(speaker.kafka, [speaker.topic])) >= 5

        async with speaker.relaying(database):
            await eventually(sent)
    assert [row["id"] for row in await rows(database, "SELECT id FROM outbox ORDER BY position")] == ids
    await speaker.check(database)
    async with speaker.relaying(database):
        await until_empty(database)
    await speaker.check(database)


async def test_another_replica_may_relay_meanwhile(speaker: Speaker, database: Database):
    async def keep_talking() -> None:
        for sequence in range(1, 10_000):
            await speaker.say(database, sequence)

    async with speaker.relaying(database) as relay:
        database.on_outbox = relay.wake
        talking = asyncio.create_task(keep_talking())
        for _ in range(15):
            await speaker.check(database)
        talking.cancel()
        await asyncio.wait([talking])
        await until_empty(database)
    assert sum((await relayed(database)).values()) > 15


async def test_a_repeat_that_comes_after_its_event_was_forgotten_is_no_sign(speaker: Speaker, database: Database):
    await speaker.sent(database, 1)
    (first,) = await read_all(speaker.kafka, [speaker.topic])
    await speaker.write((first.key or b"").decode(), first.headers)  # a killed relay's last request
    assert [one.offset for one in await read_all(speaker.kafka, [speaker.topic])] == [0, 1]
    await speaker.check(database)


async def test_what_others_wrote_is_no_sign(speaker: Speaker, database: Database):
    await speaker.sent(database, 1)
    await speaker.write("1", headers(speaker, ce_source="/isthmus/somebody"))
    await speaker.write("1", headers(speaker, ce_id="no id"))
    await speaker.write("1", headers(speaker, ce_time="yesterday"))
    await speaker.write("1", headers(speaker, ce_time="2026-01-01T00:00:00"))
    await speaker.write("1", headers(speaker, dlq_topic=speaker.topic.name))
    await speaker.write("1", [])
    await speaker.check(database)
    await speaker.write("1", headers(speaker))  # only to show that these would have been seen
    with pytest.raises(BehindError):
        await speaker.check(database)


async def test_an_event_whose_offset_the_broker_has_forgotten_is_sent_again(
    speaker: Speaker, database: Database, monkeypatch: pytest.MonkeyPatch
):
    answers = iter([False])

    def forgetful(metadata: object) -> tuple[Place, int] | None:
        return acknowledged_at(metadata) if next(answers, True) else None

    monkeypatch.setattr(relay_module, "acknowledged_at", forgetful)
    await speaker.sent(database, 1)
    assert [one.offset for one in await read_all(speaker.kafka, [speaker.topic])] == [0, 1]
    assert list((await relayed(database)).values()) == [2]
    await speaker.check(database)


# -- behind ------------------------------------------------------------------------------------------------------------


async def test_a_restored_backup_is_refused_and_the_missing_events_are_named(speaker: Speaker, database: Database):
    await speaker.sent(database, *range(1, 6))
    await speaker.say(database, 6)
    async with speaker.backup(database) as copy:
        await speaker.check(copy())  # it is not older than the log yet
        ids = await speaker.sent(database, 7, 8, 9)  # and 6, which the backup has in its outbox
        await speaker.check(database)
        assert {one.id for one in await speaker.missing(copy())} == set(ids)
        past = speaker.past(copy())
        with pytest.raises(BehindError, match=r"has 3 events.*older backup.*docs/how-to/restore.md"):
            await past.first_look()
        assert past.behind
        assert not await past.compared()


async def test_the_relay_of_a_restored_backup_sends_nothing(speaker: Speaker, database: Database):
    await speaker.sent(database, 1)
    async with speaker.backup(database) as copy:
        await speaker.sent(database, 2)
        old, ended = copy(), asyncio.Event()
        await speaker.say(old, 2)
        past = speaker.past(old)
        past.on_behind = ended.set
        relay = Relay(url_of(old), speaker.kafka, Health())
        relay.before_sending = past.before_sending
        await asyncio.wait_for(relay.run(), 10)  # it ends by itself
        assert ended.is_set()
        assert len(await read_all(speaker.kafka, [speaker.topic])) == 2
        assert await value(old, "SELECT count(*) FROM outbox") == 1


async def test_before_its_topics_were_created_there_is_nothing_to_compare(infrastructure: Stack, database: Database):
    past = Past("nobody", ["test.no-such-topic.v1"], database, infrastructure.bootstrap_servers, Health())
    await past.first_look()
    past.stop()
    assert await past.compared()


async def test_a_fresh_database_beside_an_old_log_is_refused(speaker: Speaker, database: Database):
    await speaker.sent(database, 1, 2, 3)
    async with speaker.databases.fresh("inventory") as fresh:
        with pytest.raises(BehindError, match=r"has 3 events.*fresh database beside an old log"):
            await speaker.check(fresh)


async def test_missing_dead_letters_are_told_by_where_they_came_from(speaker: Speaker, database: Database):
    await speaker.put_aside(1, database)
    async with speaker.relaying(database):
        await until_empty(database)
    await speaker.put_aside(2, database)
    async with speaker.backup(database) as copy:
        async with speaker.relaying(database):
            await until_empty(database)
        await speaker.check(copy())  # the second lies in the log, and in the outbox
        await speaker.put_aside(3, database)
        async with speaker.relaying(database):
            await until_empty(database)
        await speaker.check(database)
        assert [one.offset for one in await speaker.missing(copy())] == [2]


# -- from a release that noted nothing ---------------------------------------------------------------------------------


async def back_to_0_2(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.db.execute(
            """DROP TABLE relayed, log_to_adopt;
               DROP FUNCTION relayed_unnoted CASCADE;
               DELETE FROM migrations WHERE name = 'kernel/003_relayed.sql'"""
        )


async def test_an_upgraded_database_takes_the_log_as_it_is_once(speaker: Speaker, database: Database):
    await speaker.sent(database, 1, 2, 3)
    await back_to_0_2(database)
    async with database.transaction() as tx:
        await tx.db.execute("INSERT INTO consumer_offsets VALUES ('eat', 'elsewhere.v1', 0, 0, 7)")
    await migrate(url_of(database), MIGRATIONS)
    await speaker.check(database)
    async with speaker.backup(database) as copy:
        await speaker.sent(database, 4)  # the relay has adopted the log before
        assert sum((await relayed(database)).values()) == 4
        assert not await value(database, "SELECT count(*) FROM log_to_adopt")
        await speaker.check(database)
        await speaker.write("1", headers(speaker))
        with pytest.raises(BehindError):
            await speaker.check(database)
        await speaker.check(copy())  # a backup from before has nothing to compare with


async def test_a_fresh_database_adopts_nothing(speaker: Speaker, database: Database):
    await back_to_0_2(database)
    await migrate(url_of(database), MIGRATIONS)
    assert not await value(database, "SELECT count(*) FROM log_to_adopt")
    await speaker.write("1", headers(speaker))
    with pytest.raises(BehindError):
        await speaker.check(database)


async def test_a_relay_of_0_2_beside_newer_ones_is_noticed(
    speaker: Speaker, database: Database, monkeypatch: pytest.MonkeyPatch
):
    await speaker.sent(database, 1)
    with monkeypatch.context() as patch:
        patch.setattr(relay_module, "NOTES", "SELECT")
        patch.setattr(
            relay_module,
            "SENT",
            """DELETE FROM outbox WHERE position = ANY($1::bigint[])
                                    AND ($2::text[], $3::int[], $4::bigint[]) IS NOT NULL""",
        )
        await speaker.sent(database, 2)
    assert sum((await relayed(database)).values()) == 1
    await speaker.check(database)
    await speaker.sent(database, 3)
    assert sum((await relayed(database)).values()) == 3
    await speaker.check(database)


# -- the other way round -----------------------------------------------------------------------------------------------


async def test_a_log_that_has_lost_events_makes_the_service_unready(speaker: Speaker, database: Database):
    await speaker.sent(database, 1)
    async with database.transaction() as tx:
        await tx.db.execute("UPDATE relayed SET next_offset = 1000")
    health = Health()
    await speaker.past(database, health).first_look()
    assert "the log ends at 1" in (await health.unready())["past"]


async def test_the_moment_before_kafka_was_asked_is_no_readiness(speaker: Speaker, database: Database):
    health = Health()
    past = Past(speaker.name, [speaker.topic.name], database, "127.0.0.1:1", health)
    await past.first_look()
    assert "not yet compared" in (await health.unready())["past"]
    waiting = asyncio.create_task(past.compared())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    past.stop()
    assert not await waiting


def test_a_place_is_only_believed_when_the_broker_knows_it():
    @dataclass
    class Metadata:
        topic: str
        partition: int
        offset: int
        log_start_offset: int | None

    assert acknowledged_at(Metadata("t", 1, 7, 0)) == (("t", 1), 7)
    assert acknowledged_at(Metadata("t", 1, -1, -1)) is None
    assert acknowledged_at(Metadata("t", 1, 3, -1)) is None  # the fifth of a batch whose base is -1
