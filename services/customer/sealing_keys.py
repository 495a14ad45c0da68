"""The keys that new orders' personal data is sealed with: made daily, destroyed once nothing waits for them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import timedelta
from uuid import UUID, uuid4, uuid5

from nacl.public import PrivateKey

from services.customer.keyring import Keyring, UndecipherableError
from shared.events.customer import SealingKeyPublished
from shared.messages import Cause
from shared.postgres import Database, Tx
from shared.topics import SEALING_KEYS
from shared.work import Worker

LOCK_KEYS = "SELECT pg_advisory_xact_lock(hashtext('isthmus.sealing_keys'))"

NEW_KEY_DUE = """
SELECT clock_timestamp() AS now, coalesce(max(valid_from) <= clock_timestamp() - $1::interval, true) AS due
FROM sealing_keys
"""

NEW_KEY = "INSERT INTO sealing_keys (key_id, public_key, private_key, valid_from) VALUES ($1, $2, $3, $4)"

PRIVATE_KEYS = "SELECT key_id, private_key FROM sealing_keys WHERE key_id = ANY($1::uuid[]) AND private_key IS NOT NULL"

NEWEST_KEY = """
SELECT key_id, private_key FROM sealing_keys WHERE private_key IS NOT NULL ORDER BY valid_from DESC LIMIT 1
"""

DESTROY_KEYS = """
UPDATE sealing_keys SET private_key = NULL, destroyed_at = clock_timestamp()
WHERE key_id = ANY($1::uuid[]) AND destroyed_at IS NULL
"""


class WrongMasterKeyError(Exception):
    """ISTHMUS_MASTER_KEY is not the key that this database was written with."""


def rotation(database: Database, keyring: Keyring, hours: float) -> Worker:
    """Publishes a new key at first start, and whenever the newest is ``hours`` old."""

    async def turn() -> bool:
        async with database.transaction() as tx:
            await rotate(tx, keyring, timedelta(hours=hours))
        return False

    return Worker("sealing keys", turn, every=min(60.0, hours * 3600))


async def rotate(tx: Tx, keyring: Keyring, age: timedelta) -> UUID | None:
    """Make and publish a key if none is younger than ``age``; of several replicas one does. Returns its id."""
    await tx.db.execute(LOCK_KEYS)
    row = await tx.db.fetchrow(NEW_KEY_DUE, age)
    assert row is not None
    if not row["due"]:
        return None
    key_id, pair = uuid4(), PrivateKey.generate()
    public, wrapped = bytes(pair.public_key), keyring.wrap("sealing_keys", "private_key", key_id, bytes(pair))
    await tx.db.execute(NEW_KEY, key_id, public, wrapped, row["now"])
    event = SealingKeyPublished(
        occurred_at=row["now"], key_id=key_id, public_key=b64encode(public).decode(), valid_from=row["now"]
    )
    cause = Cause(id=uuid5(key_id, "rotation"), correlation_id=str(key_id))
    tx.publish(SEALING_KEYS, event, cause=cause, sequence=1)
    return key_id


async def private_keys(tx: Tx, keyring: Keyring, ids: Iterable[UUID]) -> Mapping[UUID, bytes]:
    """Those private keys that exist and were not destroyed."""
    rows = await tx.db.fetch(PRIVATE_KEYS, sorted(set(ids)))
    return {row["key_id"]: keyring.unwrap("sealing_keys", "private_key", row["key_id"], row[1]) for row in rows}


async def destroy(tx: Tx, ids: Iterable[UUID]) -> None:
    """Remove private keys; the rows stay, and say when. What Postgres keeps of the old rows is wrapped still."""
    await tx.db.execute(DESTROY_KEYS, sorted(set(ids)))


async def check_master_key(database: Database, keyring: Keyring) -> None:
    """Raise WrongMasterKeyError before a wrong key makes every order unreadable."""
    async with database.reading() as db:
        row = await db.fetchrow(NEWEST_KEY)
    if row is not None:
        try:
            keyring.unwrap("sealing_keys", "private_key", row["key_id"], row["private_key"])
        except UndecipherableError as error:
            raise WrongMasterKeyError(
                "ISTHMUS_MASTER_KEY is not the key this database was written with; give the service its old key"
            ) from error
