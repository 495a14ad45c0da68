-- STRICT needs SQLite 3.37 (2021). Amounts are integers of minor units; `seq` is the place in the provider's log.
CREATE TABLE IF NOT EXISTS payments (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    reference    TEXT NOT NULL,
    amount       INTEGER NOT NULL CHECK (amount > 0),
    currency     TEXT NOT NULL,
    token        TEXT NOT NULL,
    status       TEXT NOT NULL,
    decline_code TEXT,
    refunded     INTEGER NOT NULL DEFAULT 0 CHECK (refunded BETWEEN 0 AND amount),
    created_at   TEXT NOT NULL,
    settle_at    REAL,   -- a pending payment ends then, as settle_to; both null when nothing is due
    settle_to    TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS payments_by_reference ON payments (reference);
CREATE INDEX IF NOT EXISTS payments_to_settle ON payments (settle_at) WHERE settle_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS refunds (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,
    payment_id TEXT NOT NULL REFERENCES payments (id),
    reference  TEXT NOT NULL,
    amount     INTEGER NOT NULL CHECK (amount > 0),
    currency   TEXT NOT NULL,
    status     TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;

-- Keys of tok_lost whose first attempt was dropped unrecorded.
CREATE TABLE IF NOT EXISTS lost (key TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
