"""What the order service knows of others, from their events: which SKUs exist, and the keys to seal with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid5

from shared.events.customer import SealingKeyPublished
from shared.events.inventory import ItemEvent, ItemRegistered
from shared.events.order import SealingKeyRetired
from shared.messages import Batch, Cause
from shared.postgres import Database, Tx
from shared.topics import RETIRED_KEYS

SAVE_ITEMS = """
INSERT INTO known_items AS k (sku, active, version) SELECT * FROM unnest($1::text[], $2::bool[], $3::bigint[])
ON CONFLICT (sku) DO UPDATE SET active = excluded.active, version = excluded.version WHERE k.version < excluded.version
"""

UNKNOWN_ITEMS = """
SELECT w.sku FROM unnest($1::text[]) AS w (sku) LEFT JOIN known_items k USING (sku) WHERE NOT coalesce(k.active, false)
"""

SAVE_KEYS = """
INSERT INTO sealing_keys (key_id, public_key, valid_from)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[])
ON CONFLICT DO NOTHING
"""

CURRENT_KEY = """
SELECT key_id, public_key FROM sealing_keys WHERE NOT retired AND valid_from <= now() ORDER BY valid_from DESC LIMIT 1
"""

# A key is done with when a newer one has been in use for an hour, longer than any transaction that seals, and no
# order sealed with it is unidentified.
RETIRE_KEYS = """
UPDATE sealing_keys AS k SET retired = true
WHERE NOT retired
  AND valid_from < (SELECT max(valid_from) FROM sealing_keys WHERE valid_from < now() - interval '1 hour')
  AND NOT EXISTS (SELECT FROM sealed_buyers s WHERE s.key_id = k.key_id)
RETURNING key_id
"""


@dataclass(frozen=True)
class SealingKey:
    key_id: UUID
    public_key: str  # base64


async def save_items(tx: Tx, batch: Batch[ItemEvent]) -> None:
    latest: dict[str, tuple[bool, int]] = {}
    for message in batch:
        if isinstance(message.event, ItemRegistered):
            known = latest.get(message.event.sku, (False, 0))
            latest[message.event.sku] = max((message.event.active, message.sequence), known, key=lambda one: one[1])
    skus = sorted(latest)
    if skus:
        await tx.db.execute(SAVE_ITEMS, skus, [latest[sku][0] for sku in skus], [latest[sku][1] for sku in skus])


async def unknown_items(tx: Tx, skus: Iterable[str]) -> set[str]:
    """Those of ``skus`` that cannot be ordered."""
    return {row["sku"] for row in await tx.db.fetch(UNKNOWN_ITEMS, sorted(set(skus)))}


async def save_keys(tx: Tx, keys: Sequence[SealingKeyPublished]) -> None:
    await tx.db.execute(
        SAVE_KEYS, [key.key_id for key in keys], [key.public_key for key in keys], [key.valid_from for key in keys]
    )


async def current_key(tx: Tx) -> SealingKey | None:
    """The key to seal with now; None until the customer service has published one."""
    row = await tx.db.fetchrow(CURRENT_KEY)
    return None if row is None else SealingKey(row["key_id"], row["public_key"])


async def retire_keys(database: Database) -> bool:
    """Tell the customer service which private keys it may destroy."""
    async with database.transaction() as tx:
        for row in await tx.db.fetch(RETIRE_KEYS):
            key_id: UUID = row["key_id"]
            now = datetime.now(UTC)
            cause = Cause(id=uuid5(key_id, "retired"), correlation_id=str(key_id))
            event = SealingKeyRetired(occurred_at=now, key_id=key_id, retired_at=now)
            tx.publish(RETIRED_KEYS, event, cause=cause, sequence=1)
    return False
