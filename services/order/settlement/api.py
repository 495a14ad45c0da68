"""HTTP: the books. Trial balance and journal, as JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from services.order.settlement import store
from services.order.settlement.decisions import ACCOUNTS
from shared import paging
from shared.auth import Principal, requires
from shared.bodies import Moment
from shared.money import round_money
from shared.paging import Cursor, Limit, Page
from shared.postgres import Database

PIECE = 1000  # transactions per query of a whole journal
CSV = "text/csv; charset=utf-8"

Reader = Annotated[Principal, requires("ledger:read")]
From = Annotated[Moment | None, Query(alias="from", description="business time; inclusive")]
Until = Annotated[Moment | None, Query(description="business time; exclusive")]
Currency = Annotated[str | None, Query(pattern=r"^[A-Z]{3}$")]
Format = Annotated[Literal["json", "csv"], Query()]


class Account(BaseModel):
    """``balance`` = debit - credit: an asset or expense is above zero, a liability or income below."""

    account: str
    type: str
    about: str
    debit: Decimal
    credit: Decimal
    balance: Decimal


class CurrencyBalance(BaseModel):
    """Debit and credit are equal: the books balance."""

    currency: str
    accounts: list[Account]
    debit: Decimal
    credit: Decimal


class TrialBalance(BaseModel):
    currencies: list[CurrencyBalance]


class Entry(BaseModel):
    """One line of a transaction; ``cause`` is the event that it books."""

    transaction_id: int
    position: int
    occurred_at: datetime
    recorded_at: datetime
    kind: str
    order_id: UUID
    cause: UUID
    account: str
    currency: str
    debit: Decimal
    credit: Decimal


def routes(database: Database) -> Sequence[APIRouter]:
    router = APIRouter(tags=["ledger"], prefix="/ledger")

    @router.get("/trial-balance", summary="Debits and credits of every account", response_model=TrialBalance)
    async def trial_balance(
        _: Reader, currency: Currency = None, since: From = None, until: Until = None,
        channel: Annotated[str | None, Query(max_length=63)] = None, format: Format = "json",
    ) -> TrialBalance | Response:  # fmt: skip
        async with database.reading() as db:
            rows = await store.trial_balance(db, currency, since, until, channel)
        balance = TrialBalance(
            currencies=[_currency(code, of) for code, of in groupby(rows, key=lambda row: row["currency"])]
        )
        if format == "json":
            return balance
        head = ("currency", "account", "type", "debit", "credit", "balance")
        lines = [
            (of.currency, one.account, one.type, one.debit, one.credit, one.balance)
            for of in balance.currencies
            for one in of.accounts
        ]
        return Response(_csv([head, *lines]), media_type=CSV)

    @router.get("/journal", summary="Every entry, in the order of recording", response_model=Page[Entry])
    async def journal(
        _: Reader, order_id: UUID | None = None, account: Annotated[str | None, Query(max_length=64)] = None,
        currency: Currency = None, since: From = None, until: Until = None, cursor: Cursor = None, limit: Limit = 100,
        format: Format = "json",
    ) -> Page[Entry] | Response:  # fmt: skip
        wanted: dict[str, Any] = {
            "order_id": order_id, "account": account, "currency": currency, "since": since, "until": until,
        }  # fmt: skip
        after = _after(cursor)
        if format == "csv":  # all of it
            return StreamingResponse(_journal_csv(database, after, wanted), media_type=CSV)
        async with database.reading() as db:
            found = await store.journal(db, after, **wanted, limit=limit)
        next_ = paging.encode(found[-1]["id"]) if len(found) == limit else None
        return Page(items=[entry for one in found for entry in _entries(one)], next=next_)

    return (router,)


async def _journal_csv(database: Database, after: int, wanted: dict[str, Any]) -> AsyncGenerator[str]:
    yield _csv([tuple(Entry.model_fields)])
    while True:
        async with database.reading() as db:
            found = await store.journal(db, after, **wanted, limit=PIECE)
        if not found:
            return
        yield _csv(tuple(entry.model_dump(mode="json").values()) for one in found for entry in _entries(one))
        after = found[-1]["id"]


def _currency(code: str, rows: Iterable[Any]) -> CurrencyBalance:
    accounts = [_account(code, row) for row in rows]
    debit = sum((one.debit for one in accounts), Decimal(0))
    return CurrencyBalance(
        currency=code, accounts=accounts, debit=debit, credit=sum((one.credit for one in accounts), Decimal(0))
    )


def _account(currency: str, row: Any) -> Account:
    debit, credit = round_money(row["debit"], currency), round_money(row["credit"], currency)
    kind, about = ACCOUNTS[row["account"]]
    return Account(
        account=row["account"], type=kind, about=about, debit=debit, credit=credit, balance=debit - credit
    )  # fmt: skip


def _entries(transaction: dict[str, Any]) -> list[Entry]:
    same = {name: transaction[name] for name in ("occurred_at", "recorded_at", "kind", "order_id", "cause", "currency")}
    lines = zip(transaction["accounts"], transaction["amounts"], strict=True)
    return [
        Entry(
            transaction_id=transaction["id"], position=position, account=account, **same,
            debit=round_money(max(amount, Decimal(0)), same["currency"]),
            credit=round_money(max(-amount, Decimal(0)), same["currency"]),
        )
        for position, (account, amount) in enumerate(lines, 1)
    ]  # fmt: skip


def _after(cursor: str | None) -> int:
    (after,) = paging.decode(cursor, 1) or (0,)
    if not isinstance(after, int) or not 0 <= after < 2**63:
        raise paging.not_a_cursor()
    return after


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
