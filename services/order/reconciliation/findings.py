"""The life of a finding: suspected, seen again and so drift, mended or reported, gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.order.reconciliation import store
from services.order.reconciliation.decisions import MOST_REPAIRS, Difference
from shared.postgres import Database, Row, Tx
from shared.telemetry import DRIFT, DRIFT_REPAIRED, RECONCILED_AT, log

OF_ORDERS = ("stock", "points", "coupon", "quote", "books")
OF_PAYMENTS = ("payment", "payment_unknown", "payment_missing")


@dataclass(frozen=True)
class Pace:
    """In seconds: between two turns; how long at rest; between two passes. ``recent_days`` of orders come first."""

    every: float
    rest: float
    between: float
    recent_days: float

    def after_repair(self, attempts: int) -> float:
        """Until a repair is looked at: twice as long each time, a day at the most."""
        return min(86_400.0, self.rest * 2**attempts)


@dataclass(frozen=True)
class Look:
    """A finding, and its subject as it is now.

    ``proven``: whoever answered had read all that there was when the subject was last seen at this ``version``.
    """

    finding: Row
    now: Difference | None
    version: int | None
    proven: bool = True
    log_end: int | None = None  # to be remembered, where the proof is yet to come


async def weigh(tx: Tx, look: Look, pace: Pace) -> bool:
    """Note what came of a second look; returns whether something is to be done about it."""
    finding, now = look.finding, look.now
    if now is None:
        for kind, repaired in await store.gone(tx, [finding]):
            log.info("drift is gone", kind=kind, subject=finding["subject"], repaired=repaired)
            if repaired:
                tx.after_commit(_count(kind))
        return False
    if finding["version"] != look.version or look.log_end is not None:
        await store.look_again(tx, finding, look.version, look.log_end, now, pace.rest)
        return False
    if not look.proven:
        await store.put_off(tx, [finding], pace.rest)
        return False
    if finding["confirmed_at"] is None:
        log.warning(
            "drift", kind=finding["kind"], subject=finding["subject"], expected=now.expected, found=now.found,
            mendable=now.mendable,
        )  # fmt: skip
        await store.confirm(tx, finding, now, pace.between)
    if now.mendable and finding["attempts"] < MOST_REPAIRS:
        return True
    await store.put_off(tx, [finding], max(pace.rest, pace.between))
    return False


def _count(kind: str) -> Callable[[], None]:
    return DRIFT_REPAIRED.labels(kind).inc


async def show(database: Database) -> bool:
    """The open findings by kind, and when each walk last came to its end; by every replica, from the tables."""
    async with database.reading() as db:
        counts, walks = await store.counts(db), await store.walks(db)
    for kind in (*OF_ORDERS, *OF_PAYMENTS):
        DRIFT.labels(kind).set(counts.get(kind, 0))
    for walk in walks:
        if walk["finished_at"] is not None:
            RECONCILED_AT.labels(walk["walk"]).set(walk["finished_at"].timestamp())
    return False


async def clear(database: Database) -> bool:
    """Forget what was closed long ago."""
    async with database.transaction() as tx:
        await store.clear(tx)
    return False


async def not_open(database: Database, found: Sequence[store.Suspicion]) -> list[store.Suspicion]:
    """Those of them that nobody has noted yet."""
    if not found:
        return []
    async with database.reading() as db:
        known = await store.open_findings(db, [one.subject for one in found])
    return [one for one in found if (one.difference.kind, one.subject) not in known]
