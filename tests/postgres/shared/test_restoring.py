"""The documented way back, on a server of its own: an old backup is refused, and replaying all WAL loses nothing."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.local.stack import Stack
from deploy.local.supervisor import ROOT
from shared.kafka import read_all
from shared.migrate import migrate
from shared.past import BehindError
from shared.postgres import Database
from tests.support.databases import Databases
from tests.support.kernel import value
from tests.support.own_postgres import OwnPostgres, commands
from tests.support.speaker import Speaker

MIGRATIONS = ROOT / "services" / "inventory" / "migrations"


@pytest.fixture
def server() -> Generator[OwnPostgres]:
    directory = Path(ROOT / ".local" / f"server-{uuid4().hex[:12]}")
    server = OwnPostgres(directory, "inventory")
    yield server
    server.end()
    shutil.rmtree(directory)


@asynccontextmanager
async def opened(server: OwnPostgres) -> AsyncGenerator[Database]:
    database = await Database.open(server.url)
    yield database
    database.pool.terminate()


async def test_an_old_backup_is_refused_and_all_wal_brings_it_to_its_end(
    infrastructure: Stack, databases: Databases, server: OwnPostgres
):
    speaker = await Speaker.new(infrastructure.bootstrap_servers, databases)
    await migrate(server.url, MIGRATIONS)
    async with opened(server) as database:
        ids = await speaker.sent(database, 1, 2, 3)
        (backup,) = commands("Take a base backup")
        server.run(backup)
        later = await speaker.sent(database, 4, 5)
        server.run("psql -qc 'SELECT pg_switch_wal()' postgres")  # these are in the archive
        last = await speaker.sent(database, 6, 7)  # these are on its disk only
        waiting = await speaker.say(database, 8)
    server.kill()
    server.data.rename(server.lost)
    server.run('cp -a "$BACKUP" "$PGDATA"')
    server.start()
    async with opened(server) as database:
        assert {one.id for one in await speaker.missing(database)} == {*later, *last}
        with pytest.raises(BehindError):
            await speaker.past(database).first_look()
        assert await value(database, "SELECT sum(next_offset) FROM relayed") == 3

    *restoring, _ = commands("Restore one service")
    for block in restoring:
        server.run(block)
    async with opened(server) as database:
        assert await speaker.missing(database) == []
        assert await value(database, "SELECT count(*) FROM outbox") == 1
        more = await speaker.sent(database, 9)
        assert await speaker.missing(database) == []
    said = Counter(dict(record.headers)["ce_id"].decode() for record in await read_all(speaker.kafka, [speaker.topic]))
    assert said == Counter(str(id_) for id_ in [*ids, *later, *last, *waiting, *more])


async def test_a_backup_without_the_last_wal_is_still_refused(
    infrastructure: Stack, databases: Databases, server: OwnPostgres
):
    speaker = await Speaker.new(infrastructure.bootstrap_servers, databases)
    await migrate(server.url, MIGRATIONS)
    async with opened(server) as database:
        await speaker.sent(database, 1)
        (backup,) = commands("Take a base backup")
        server.run(backup)
        await speaker.sent(database, 2)
        server.run("psql -qc 'SELECT pg_switch_wal()' postgres")
        last = await speaker.sent(database, 3)
    server.kill()
    server.run('rm -r "$PGDATA/pg_wal"; mkdir "$PGDATA/pg_wal"')  # its disk is gone
    aside, _, restore, _ = commands("Restore one service")
    server.run(aside)
    server.run(restore)
    async with opened(server) as database:
        assert [one.id for one in await speaker.missing(database)] == last
