"""A platform of its own in .local/flows: Kafka, Postgres, all services, issuer and payment provider, begun afresh."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from bench.platform import Platform
from deploy.local.stack import Stack
from tests.flows.market import ENVIRONMENT, Market

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def stack() -> Generator[Stack]:
    """Started once with empty data, ended with the session; a second session in this checkout waits for the first."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    stack = Stack(ROOT / ".local" / f"flows{worker}")
    stack.directory.parent.mkdir(exist_ok=True)
    with open(stack.directory.with_suffix(".lock"), "a") as session:
        fcntl.flock(session, fcntl.LOCK_EX)
        stack.clean()
        stack.up(env=ENVIRONMENT)
        yield stack
        stack.down()


@pytest.fixture(scope="session")
async def market(stack: Stack) -> AsyncGenerator[Market]:
    """A shop on that platform. Whatever the tests did to it, in the end every invariant holds."""
    async with Platform.connect(stack.directory) as platform:
        market = Market(platform)
        await market.open()
        yield market
        await market.holds_all_invariants()
        await market.close()
