-- `seq` is the order of arrival. Nothing is unique: a mail that came twice is shown twice.
CREATE TABLE IF NOT EXISTS messages (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    message_id  TEXT NOT NULL,
    sender      TEXT NOT NULL,  -- of the envelope
    recipients  TEXT NOT NULL,  -- of the envelope, a JSON list
    received_at TEXT NOT NULL,
    raw         BLOB NOT NULL
) STRICT;

-- Mails that have met a fault once: the next attempt goes through.
CREATE TABLE IF NOT EXISTS hindered (message_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
