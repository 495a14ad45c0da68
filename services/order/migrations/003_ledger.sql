-- The double-entry ledger. One row is one transaction in one currency: accounts with their amounts, debits positive,
-- credits negative, in sum zero. Rows are added, never changed: the service's own role may do no more.
CREATE FUNCTION total_of(amounts numeric[]) RETURNS numeric LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
    'SELECT coalesce(sum(amount), 0) FROM unnest(amounts) AS amount';

CREATE TABLE ledger (
    id          bigint GENERATED ALWAYS AS IDENTITY, -- the journal's order
    order_id    uuid NOT NULL,
    cause       uuid NOT NULL,                       -- the event that it books
    currency    text NOT NULL,
    kind        text NOT NULL,
    accounts    text[] NOT NULL,
    amounts     numeric[] NOT NULL,
    occurred_at timestamptz NOT NULL,                -- business time: the day of the books
    recorded_at timestamptz NOT NULL DEFAULT now(),
    written_by  xid8 NOT NULL DEFAULT pg_current_xact_id(), -- a page ends before what is not committed yet
    PRIMARY KEY (order_id, cause, currency),         -- an event is booked once
    CONSTRAINT balanced CHECK (total_of(amounts) = 0),
    CONSTRAINT paired CHECK (cardinality(accounts) = cardinality(amounts) AND cardinality(accounts) >= 2)
);
CREATE UNIQUE INDEX ledger_by_id ON ledger (id);
CREATE INDEX ledger_by_time ON ledger (occurred_at);
REVOKE UPDATE, DELETE, TRUNCATE ON ledger FROM CURRENT_USER;
