"""The ledger in the database: balanced or refused, added to and never changed, and read over HTTP."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from uuid import UUID, uuid4

import asyncpg
import pytest

from services.order.payments.decisions import PaymentReport
from services.order.payments.worker import Outcome, apply
from services.order.settlement import store
from services.order.settlement.decisions import Posting
from shared.postgres import Database
from tests.support.kernel import rows
from tests.support.orders import NOW
from tests.support.shop import counter, open_shop, paying_order

CAPTURED = PaymentReport("captured", Decimal("40.00"), "pay_1", fee=Decimal("0.76"))


async def sold(database: Database, reference: str = "shop-1") -> UUID:
    """An order of 40.00 that is paid and confirmed."""
    order_id = await paying_order(database, reference)
    await apply(database, [Outcome(order_id, CAPTURED)])
    return order_id


def posting(order_id: UUID, **amounts: str) -> Posting:
    return Posting("sale", order_id, "EUR", NOW, {account: Decimal(amount) for account, amount in amounts.items()})


async def add(database: Database, cause: UUID, one: Posting) -> None:
    async with database.transaction() as tx:
        await store.append(tx, [(cause, one)])


async def test_a_paid_order_is_in_the_books_at_once(database: Database):
    await open_shop(database)
    order_id = await sold(database)
    await apply(database, [Outcome(order_id, CAPTURED)])  # told again
    async with counter(database, "ledger:read") as client:
        journal = (await client.get("/ledger/journal", params={"order_id": str(order_id)})).json()["items"]
        balance = (await client.get("/ledger/trial-balance")).json()
    assert [(one["kind"], one["account"], one["debit"], one["credit"]) for one in journal] == [
        ("payment", "cash", "39.24", "0.00"),
        ("payment", "provider_fees", "0.76", "0.00"),
        ("payment", "receivable", "0.00", "40.00"),
        ("sale", "receivable", "40.00", "0.00"),
        ("sale", "revenue", "0.00", "40.00"),
    ]
    (euro,) = balance["currencies"]
    assert (euro["currency"], euro["debit"], euro["credit"]) == ("EUR", "80.00", "80.00")
    assert {one["account"]: one["balance"] for one in euro["accounts"]} == {
        "cash": "39.24", "provider_fees": "0.76", "receivable": "0.00", "revenue": "-40.00",
    }  # fmt: skip


async def test_what_does_not_balance_is_refused_by_the_database(database: Database):
    await open_shop(database)
    order_id = await sold(database)
    with pytest.raises(asyncpg.CheckViolationError, match="balanced"):
        await add(database, uuid4(), posting(order_id, cash="1.00", revenue="-0.99"))
    with pytest.raises(asyncpg.CheckViolationError, match="paired"):
        await add(database, uuid4(), posting(order_id, cash="0"))


async def test_an_event_is_booked_once(database: Database):
    await open_shop(database)
    order_id, cause = await sold(database), uuid4()
    await add(database, cause, posting(order_id, cash="1.00", receivable="-1.00"))
    with pytest.raises(asyncpg.UniqueViolationError):
        await add(database, cause, posting(order_id, cash="1.00", receivable="-1.00"))


@pytest.mark.parametrize("change", ["UPDATE ledger SET kind = 'other'", "DELETE FROM ledger", "TRUNCATE ledger"])
async def test_the_services_role_may_not_change_what_was_booked(database: Database, change: str):
    await open_shop(database)
    await sold(database)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.transaction() as tx:
            await tx.db.execute(change)
    assert len(await rows(database, "SELECT FROM ledger")) == 2


async def test_books_are_read_by_time_account_channel_and_page(database: Database):
    await open_shop(database)
    first, second = await sold(database, "shop-1"), await sold(database, "shop-2")
    async with counter(database, "ledger:read") as client:

        async def entries(**params: str) -> list[tuple[str, str]]:
            found = (await client.get("/ledger/journal", params=params)).json()["items"]
            return [(one["order_id"], one["account"]) for one in found]

        assert await entries(account="revenue") == [(str(first), "receivable"), (str(first), "revenue"),
                                                    (str(second), "receivable"), (str(second), "revenue")]  # fmt: skip
        assert await entries(until="2000-01-01T00:00:00Z") == []
        assert len(await entries(**{"from": "2000-01-01T00:00:00Z"})) == 10
        page = (await client.get("/ledger/journal", params={"limit": 1})).json()
        assert {one["transaction_id"] for one in page["items"]} == {page["items"][0]["transaction_id"]}
        seen = len(page["items"])
        while page["next"]:
            page = (await client.get("/ledger/journal", params={"limit": 1, "cursor": page["next"]})).json()
            seen += len(page["items"])
        assert seen == 10
        for channel, currencies in (("shop", 1), ("elsewhere", 0)):
            balance = (await client.get("/ledger/trial-balance", params={"channel": channel})).json()
            assert len(balance["currencies"]) == currencies
        assert (await client.get("/ledger/journal", params={"cursor": "nonsense"})).status_code == 422


async def test_books_are_handed_over_as_csv(database: Database):
    await open_shop(database)
    await sold(database)
    async with counter(database, "ledger:read") as client:
        balance = await client.get("/ledger/trial-balance", params={"format": "csv"})
        journal = await client.get("/ledger/journal", params={"format": "csv", "limit": 1})  # all of it all the same
    assert balance.headers["content-type"].startswith("text/csv")
    lines = list(csv.DictReader(io.StringIO(balance.text)))
    assert [(line["account"], line["balance"]) for line in lines] == [
        ("cash", "39.24"), ("provider_fees", "0.76"), ("receivable", "0.00"), ("revenue", "-40.00"),
    ]  # fmt: skip
    entries = list(csv.DictReader(io.StringIO(journal.text)))
    assert sum(Decimal(one["debit"]) - Decimal(one["credit"]) for one in entries) == 0
    assert len(entries) == 5


async def test_the_books_are_not_open_to_everybody(database: Database):
    async with counter(database, "orders:read") as client:
        for path in ("/ledger/journal", "/ledger/trial-balance"):
            assert (await client.get(path)).status_code == 403


async def test_no_page_of_the_journal_passes_over_what_is_not_committed_yet(database: Database):
    """Ids are given out before they are committed: a reader must not go past one that is still to come."""
    await open_shop(database)
    first, second = [await paying_order(database, reference) for reference in ("shop-1", "shop-2")]

    async def seen() -> list[str]:
        async with counter(database, "ledger:read") as client:
            found = (await client.get("/ledger/journal")).json()["items"]
        return sorted({one["order_id"] for one in found})

    async with database.transaction() as slow:
        await store.append(slow, [(uuid4(), posting(first, cash="1.00", receivable="-1.00"))])
        await add(database, uuid4(), posting(second, cash="1.00", receivable="-1.00"))
        assert await seen() == []
    assert await seen() == sorted([str(first), str(second)])


@pytest.mark.parametrize("path", ["/ledger/journal", "/ledger/trial-balance"])
@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "yesterday"])
async def test_times_that_no_book_has_are_refused(database: Database, path: str, at: str):
    async with counter(database, "ledger:read") as client:
        for side in ("from", "until"):
            assert (await client.get(path, params={side: at})).status_code == 422
