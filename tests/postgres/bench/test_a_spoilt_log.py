"""A gap in Kafka's log cannot be mended, so it is made in one that no service lives by; the checker reads it there."""

from __future__ import annotations

import pytest

from bench.evidence import Evidence, _logged
from bench.invariants import i7_order
from bench.plant import check, spoil
from bench.platform import PlatformError
from deploy.local.stack import Stack
from shared.kafka import create_topics, read_all
from shared.topics import PRICES


async def gaps(stack: Stack, sku: str) -> list[str]:
    records = await read_all(stack.bootstrap_servers, [PRICES])
    finding = i7_order(Evidence({}, [one for record in records if (one := _logged(record)) is not None], []))
    return [one for one in finding.broken if sku in one]


async def test_an_event_without_the_one_before_it_is_caught(infrastructure: Stack):
    await create_topics(infrastructure.bootstrap_servers, [PRICES])
    sku = await spoil(infrastructure)
    assert await gaps(infrastructure, sku) == [f"{PRICES.name} {sku}: sequence 2, expected 1"]


def test_what_cannot_be_mended_is_not_planted_in_a_running_platform():
    with pytest.raises(PlatformError, match="no violation of I7"):
        check("I7")
