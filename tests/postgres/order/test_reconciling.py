"""Orders against what others say they hold: suspected, proven, restated, closed; and the provider's log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prometheus_client import REGISTRY

from services.order import store as orders
from services.order.cancellations import cancel
from services.order.payments.decisions import PaymentReport
from services.order.payments.worker import Outcome, PaymentCalls, apply
from services.order.reconciliation import api
from services.order.reconciliation.decisions import Held
from services.order.reconciliation.findings import Pace, show
from services.order.reconciliation.holders import Answers, Holders
from services.order.reconciliation.orders import OrderReconciler
from services.order.reconciliation.payments import PaymentReconciler
from shared.app import build_app
from shared.clients import UnavailableError
from shared.health import Health
from shared.postgres import Database
from tests.support.http import Issuer, client_of
from tests.support.kernel import rows, value
from tests.support.orders import NOW
from tests.support.shop import body, open_shop, paying_order, place, provider_at, sandbox, timeline

PACE = Pace(every=1, rest=0, between=0, recent_days=1)
GOODS = {("RED-LAMP", "BER"): 1, ("BLUE-CUP", "GRZ"): 2}
CAPTURED = PaymentReport("captured", Decimal("40.00"), "pay_1")


@dataclass
class Others:
    """What inventory, customer and pricing answer, and how far they have read."""

    held: dict[UUID, Held] = field(default_factory=dict[UUID, Held])
    read: int = 10
    log_end: int = 10
    away: bool = False
    asked: int = 0

    async def ask(self, order_ids: Sequence[UUID]) -> Answers:
        self.asked += 1
        if self.away:
            raise UnavailableError("away")
        read = dict.fromkeys(range(12), self.read)
        held = {id_: held for id_, held in self.held.items() if id_ in order_ids}
        return Answers(held, dict.fromkeys(("inventory", "customer", "pricing"), read))

    async def ends(self) -> dict[int, int]:
        return dict.fromkeys(range(12), self.log_end)


def reconciler(database: Database, others: Others) -> OrderReconciler:
    return OrderReconciler(database, cast(Holders, others), others.ends, PACE)


async def said_to_kafka(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.db.execute("DELETE FROM outbox")


async def turns(database: Database, others: Others, number: int = 1) -> None:
    for _ in range(number):
        await said_to_kafka(database)
        await reconciler(database, others).turn()


async def cancelled(database: Database) -> UUID:
    await open_shop(database)
    order_id = await paying_order(database)
    async with database.transaction() as tx:
        found = await orders.load(tx, [order_id])
        order = found.by_id[order_id]
        events = cancel(order, "requested", NOW)
        assert isinstance(events, list)
        found.happen(tx, order, events, found.cause(order_id, "test"), NOW)
        await orders.save(tx, found)
    return order_id


async def confirmed(database: Database) -> UUID:
    await open_shop(database)
    order_id = await paying_order(database)
    await apply(database, [Outcome(order_id, CAPTURED)])
    return order_id


async def findings(database: Database) -> list[dict[str, Any]]:
    return [dict(row) for row in await rows(database, "SELECT * FROM findings ORDER BY finding_id")]


async def restatements(database: Database, order_id: UUID) -> int:
    return (await timeline(database, order_id)).count("OrderRestated")


async def test_an_orphaned_hold_is_suspected_then_proven_restated_and_closed(database: Database):
    order_id, others = await cancelled(database), Others()
    others.held[order_id] = Held({("RED-LAMP", "BER"): 1})
    await turns(database, others)
    (one,) = await findings(database)
    assert (one["kind"], one["confirmed_at"], one["log_end"]) == ("stock", None, 10)
    await reconciler(database, others).turn()
    (one,) = await findings(database)
    assert one["confirmed_at"] is not None
    assert one["repaired_at"] is not None
    assert (one["expected"], one["found"]) == ("none", "RED-LAMP 1 in BER")
    assert await restatements(database, order_id) == 1
    said = await value(database, "SELECT payload FROM outbox WHERE type = 'isthmus.order.OrderRestated.v1'")
    assert b'"state":"cancelled","goods":[],"points":0,"keeps_coupon":false' in said
    await show(database)
    assert REGISTRY.get_sample_value("isthmus_drift", {"kind": "stock"}) == 1
    others.held.clear()
    await turns(database, others)
    assert (await findings(database))[0]["closed_at"] is not None
    await show(database)
    assert REGISTRY.get_sample_value("isthmus_drift", {"kind": "stock"}) == 0


async def test_a_holder_that_has_not_read_so_far_is_not_accused(database: Database):
    order_id, others = await cancelled(database), Others(read=9)
    others.held[order_id] = Held({("RED-LAMP", "BER"): 1}, 5, "TEN")
    await turns(database, others, 4)
    assert [one["confirmed_at"] for one in await findings(database)] == [None] * 3
    assert await restatements(database, order_id) == 0
    others.held.clear()
    others.read = 10
    await turns(database, others)
    assert await findings(database) == [], "a suspicion leaves nothing"


async def test_an_order_that_has_gone_on_is_looked_at_anew(database: Database):
    order_id, others = await confirmed(database), Others()
    others.held[order_id] = Held({})
    await turns(database, others)
    async with database.transaction() as tx:
        await tx.db.execute("UPDATE orders SET version = version + 1")
    await turns(database, others)
    (one,) = await findings(database)
    assert one["confirmed_at"] is None
    assert one["version"] == await value(database, "SELECT version FROM orders")


async def test_what_waits_in_the_outbox_or_moves_is_not_looked_at(database: Database):
    order_id, others = await cancelled(database), Others()
    others.held[order_id] = Held({("RED-LAMP", "BER"): 1})
    await reconciler(database, others).turn()
    assert others.asked == 0, "not said yet"
    await said_to_kafka(database)
    calm = Pace(every=1, rest=60, between=0, recent_days=1)
    await OrderReconciler(database, cast(Holders, others), others.ends, calm).turn()
    assert others.asked == 0, "changed a moment ago"


async def test_a_holder_that_is_away_stops_nothing_and_loses_no_place(database: Database):
    order_id, others = await cancelled(database), Others(away=True)
    others.held[order_id] = Held({("RED-LAMP", "BER"): 1})
    await turns(database, others)
    assert await findings(database) == []
    others.away = False
    await turns(database, others)
    assert len(await findings(database)) == 1


async def test_healthy_and_open_orders_are_left_alone(database: Database):
    order_id, others = await confirmed(database), Others()
    others.held[order_id] = Held(GOODS)
    (open_,) = await place(database, body("shop-2"))
    others.held[open_] = Held({("RED-LAMP", "BER"): 7})
    await turns(database, others, 3)
    assert await findings(database) == []
    assert REGISTRY.get_sample_value("isthmus_reconciled_total", {"kind": "orders"})


async def test_what_cannot_be_mended_is_reported_and_not_restated_for_ever(database: Database):
    order_id, others = await confirmed(database), Others()
    others.held[order_id] = Held(GOODS, 5)
    async with database.transaction() as tx:
        await tx.db.execute("UPDATE payments SET refunded = 1")
    await turns(database, others, 3)
    found = {one["kind"]: (one["mendable"], one["attempts"]) for one in await findings(database)}
    assert found.keys() == {"points", "books"}
    assert found["books"] == (False, 0)
    await turns(database, others, 40)
    assert await restatements(database, order_id) == 6


async def test_two_replicas_restate_once(database: Database):
    order_id, others = await cancelled(database), Others()
    others.held[order_id] = Held({("RED-LAMP", "BER"): 1})
    await turns(database, others)
    one, other = reconciler(database, others), reconciler(database, others)
    async with database.reading() as db:
        row = await db.fetchrow("SELECT * FROM findings")
    assert row is not None
    await one._restate({order_id: [row]})
    await other._restate({order_id: [row]})
    assert await restatements(database, order_id) == 1


async def test_findings_are_shown_to_admins_only(database: Database):
    order_id, others = await cancelled(database), Others()
    others.held[order_id] = Held({("RED-LAMP", "BER"): 1})
    await turns(database, others, 2)
    issuer = Issuer()
    app = build_app("order", [api.routes(database)], Health())
    app.state.authenticator = issuer.authenticator()
    async with client_of(app, issuer.token("admin")) as client:
        shown = (await client.get("/admin/reconciliation")).json()
        assert [(one["kind"], one["subject"]) for one in shown["findings"]] == [("stock", str(order_id))]
        assert {one["walk"] for one in shown["walks"]} == {"recent orders", "all orders", "payments"}
    async with client_of(app, issuer.token("orders:read")) as client:
        assert (await client.get("/admin/reconciliation")).status_code == 403


# The provider's log


async def paid(database: Database, url: str) -> UUID:
    """An order that has been paid at the provider; returns its payment."""
    await open_shop(database)
    order_id = await paying_order(database)
    await asked(database, url)
    return await value(database, "SELECT payment_id FROM payments WHERE order_id = $1", order_id)


async def asked(database: Database, url: str) -> None:
    """What is due is asked of the provider, and stored."""
    calls = PaymentCalls(database, provider_at(url, 2.0))
    for call in await calls._claim(10):
        if (outcome := await call) is not None:
            await apply(database, [outcome])
    await calls.close()


async def test_the_provider_s_log_agrees_with_ours(database: Database, tmp_path: Path):
    async with sandbox(tmp_path) as url:
        await paid(database, url)
        payments = PaymentReconciler(database, provider_at(url, 2.0), PACE)
        await payments.turn()
        await payments.turn()
        assert await findings(database) == []
        assert await value(database, "SELECT count(*) FROM payments_seen") == 1


async def test_a_capture_that_we_gave_up_is_found_and_settled(database: Database, tmp_path: Path):
    async with sandbox(tmp_path) as url:
        await open_shop(database)
        order_id = await paying_order(database)
        (row,) = await rows(database, "SELECT * FROM payments")
        theirs = provider_at(url, 2.0)
        await theirs.charge(row["payment_id"], "tok_ok", row["amount"], row["currency"])
        async with database.transaction() as tx:
            await tx.db.execute("UPDATE payments SET due_at = NULL")
        payments = PaymentReconciler(database, theirs, PACE)
        await payments.turn()
        (one,) = await findings(database)
        assert (one["kind"], one["confirmed_at"]) == ("payment", None)
        await payments.turn()
        await asked(database, url)
        assert "PaymentCaptured" in await timeline(database, order_id)
        await payments.turn()
        (one,) = await findings(database)
        assert one["closed_at"] is not None
        assert one["repaired_at"] is not None


async def test_what_one_side_alone_knows_is_reported_and_not_touched(database: Database, tmp_path: Path):
    async with sandbox(tmp_path) as url:
        payment_id = await paid(database, url)
        theirs = provider_at(url, 2.0)
        await theirs.charge(UUID(int=7), "tok_ok", Decimal("5.00"), "EUR")
        async with database.transaction() as tx:  # as if it had been captured elsewhere
            await tx.db.execute("UPDATE payments SET payment_id = $1", UUID(int=8))
        payments = PaymentReconciler(database, theirs, PACE)
        for _ in range(3):
            await payments.turn()
        found = {(one["kind"], one["subject"]): one["attempts"] for one in await findings(database)}
        assert found == {
            ("payment_unknown", str(UUID(int=7))): 0,
            ("payment_unknown", str(payment_id)): 0,
            ("payment_missing", str(UUID(int=8))): 0,
        }
