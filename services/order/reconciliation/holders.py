"""The services that hold something for orders, asked over HTTP: nobody reads another's database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from services.order.reconciliation.decisions import Held, held_units
from shared.clients import ServiceClient
from shared.holdings import Holding, Holdings

HOLDER = {"stock": "inventory", "points": "customer", "coupon": "pricing", "quote": "pricing"}  # by kind of difference
NONE = Held()


@dataclass(frozen=True)
class Answers:
    """What is held by order, and how far each holder has read orders: next offset by partition."""

    held: Mapping[UUID, Held]
    read: Mapping[str, Mapping[int, int]]

    def of(self, order_id: UUID) -> Held:
        return self.held.get(order_id, NONE)

    def had_read(self, kind: str, partition: int, log_end: int) -> bool:
        """Whether the answer that speaks of this kind contains all that lay before ``log_end``; of our own it does."""
        holder = HOLDER.get(kind)
        return holder is None or self.read[holder].get(partition, 0) >= log_end


class Holders:
    """Inventory, customer and pricing."""

    def __init__(self, clients: Mapping[str, ServiceClient]):
        """``clients`` by the names of ``HOLDER``."""
        self._clients = clients

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()

    async def ask(self, order_ids: Sequence[UUID]) -> Answers:
        """What these orders, 500 at most, hold with all of them; raises UnavailableError when one does not answer."""
        body = {"order_ids": [str(id_) for id_ in order_ids]}
        told = await asyncio.gather(*(client.post("/holdings", body) for client in self._clients.values()))
        answers = {
            name: Holdings.model_validate_json(answer.content)
            for name, answer in zip(self._clients, told, strict=True)
        }  # fmt: skip
        held: dict[UUID, Held] = {}
        for answer in answers.values():
            for one in answer.holdings:
                held[one.order_id] = _add(held.get(one.order_id, NONE), one)
        return Answers(held, {name: answer.read for name, answer in answers.items()})


def _add(held: Held, one: Holding) -> Held:
    return Held(
        {**held.goods, **held_units(one.goods)}, held.points + one.points, held.coupon or one.coupon,
        held.quote or one.quote_id is not None,
    )  # fmt: skip
