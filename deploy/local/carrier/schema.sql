-- Times are seconds since 1970. `seq` is the place in the carrier's log.
CREATE TABLE IF NOT EXISTS parcels (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT NOT NULL UNIQUE,
    reference       TEXT NOT NULL,
    warehouse       TEXT NOT NULL,
    recipient       TEXT NOT NULL,  -- JSON
    weight          INTEGER,        -- grams
    units           INTEGER NOT NULL,
    status          TEXT NOT NULL,
    tracking_number TEXT NOT NULL UNIQUE,
    label_url       TEXT NOT NULL,
    price           INTEGER NOT NULL,  -- minor units
    currency        TEXT NOT NULL,
    created_at      REAL NOT NULL,
    updated_at      REAL NOT NULL,
    promised_at     REAL NOT NULL,
    expected_at     REAL,           -- what a delay has made of the promise
    delivered_at    REAL
) STRICT;
CREATE INDEX IF NOT EXISTS parcels_by_reference ON parcels (reference);

-- What is still to happen to a parcel by itself.
CREATE TABLE IF NOT EXISTS moves (
    parcel_id TEXT NOT NULL REFERENCES parcels (id),
    kind      TEXT NOT NULL,
    step      INTEGER NOT NULL,  -- the order of a parcel's moves, where several are due
    due_at    REAL NOT NULL,
    PRIMARY KEY (parcel_id, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS moves_due ON moves (due_at);

-- What has happened, as the merchant was told of it: to be told again word for word.
CREATE TABLE IF NOT EXISTS notices (
    parcel_id TEXT NOT NULL REFERENCES parcels (id),
    kind      TEXT NOT NULL,
    data      TEXT NOT NULL,  -- JSON
    PRIMARY KEY (parcel_id, kind)
) STRICT, WITHOUT ROWID;
