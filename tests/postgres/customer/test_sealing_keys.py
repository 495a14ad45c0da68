"""Sealing keys: made when due, published with it, destroyed when nothing waits for them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from services.customer import sealing_keys
from services.customer.keyring import Keyring
from shared.topics import SEALING_KEYS

if TYPE_CHECKING:
    from tests.postgres.customer.conftest import World


async def rotate(world: World, age: timedelta) -> None:
    async with world.database.transaction() as tx:
        await sealing_keys.rotate(tx, world.keyring, age)


async def test_a_key_is_made_when_the_newest_is_old_enough_by_one_of_several_replicas(world: World) -> None:
    await asyncio.gather(*(rotate(world, timedelta(hours=24)) for _ in range(4)))
    assert len(await world.said(SEALING_KEYS)) == 1
    async with world.database.transaction() as tx:
        await tx.db.execute("UPDATE sealing_keys SET valid_from = valid_from - interval '24 hours'")
    await asyncio.gather(*(rotate(world, timedelta(hours=24)) for _ in range(4)))
    said = await world.said(SEALING_KEYS)
    assert len(said) == 2
    assert {sequence for _, sequence in said} == {1}


async def test_a_retired_key_loses_its_private_half_and_keeps_its_row(world: World) -> None:
    await world.retire(world.key_id)
    ((first,),) = await world.rows("SELECT destroyed_at FROM sealing_keys WHERE private_key IS NULL")
    await world.retire(world.key_id)
    assert await world.rows("SELECT key_id, destroyed_at FROM sealing_keys") == [(world.key_id, first)]


async def test_a_wrong_master_key_is_noticed_at_the_start(world: World) -> None:
    await sealing_keys.check_master_key(world.database, world.keyring)
    with pytest.raises(sealing_keys.WrongMasterKeyError):
        await sealing_keys.check_master_key(world.database, Keyring(b"x" * 32))
