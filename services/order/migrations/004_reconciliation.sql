-- Where the reconciler's walks have come to, and what they found.
CREATE TABLE reconciliation_walks (
    walk         text PRIMARY KEY,
    position     text NOT NULL DEFAULT '',        -- as the walk itself counts; empty: at the beginning
    began_at     timestamptz,                     -- this pass, or the one before where none is under way
    finished_at  timestamptz,                     -- the last whole pass
    leased_until timestamptz NOT NULL DEFAULT '-infinity' -- one replica at a time goes on
);
INSERT INTO reconciliation_walks (walk) VALUES ('recent orders'), ('all orders'), ('payments');

-- A difference that was seen once is a suspicion; seen again, when whoever answers has certainly read all that the order
-- said, it is drift. What was drift is kept, closed, for a while.
CREATE TABLE findings (
    finding_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL,                   -- stock, points, coupon, quote, books; payment, payment_unknown, payment_missing
    subject      text NOT NULL,                   -- an order's id; of payments the payment's
    order_id     uuid,                            -- null for a payment of which we know no order
    expected     text NOT NULL,
    found        text NOT NULL,
    mendable     boolean NOT NULL,                -- something can be done about it by itself
    version      bigint,                          -- of the order, when it was seen
    log_end      bigint,                          -- of the order's partition, taken after its events were in the log
    first_seen   timestamptz NOT NULL DEFAULT now(),
    confirmed_at timestamptz,                     -- null: a suspicion
    repaired_at  timestamptz,                     -- the last try
    attempts     int NOT NULL DEFAULT 0,
    look_at      timestamptz NOT NULL,            -- when it is looked at next
    closed_at    timestamptz
);
CREATE UNIQUE INDEX findings_open ON findings (kind, subject) WHERE closed_at IS NULL;
CREATE INDEX findings_by_closing ON findings (closed_at) WHERE closed_at IS NOT NULL;

-- Captured payments that the provider's log has shown, once for all.
CREATE TABLE payments_seen (
    payment_id uuid PRIMARY KEY
);
