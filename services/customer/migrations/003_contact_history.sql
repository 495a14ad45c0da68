-- When we wrote to whom about what, as notify says: ids only. One row per order and trigger; once a message was sent or
-- has failed, its row stays as it is.
CREATE TABLE contact_history (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id uuid,                         -- null while nobody knows whose order it is
    order_id    uuid NOT NULL,
    trigger     text NOT NULL,
    state       text NOT NULL CHECK (state IN ('triggered', 'sent', 'failed')),
    reason      text,                         -- why it failed
    channel     text,                         -- over which it was sent
    occurred_at timestamptz NOT NULL,         -- of the state
    recorded_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT once_per_order UNIQUE (order_id, trigger)
);
CREATE INDEX contact_history_by_customer ON contact_history (customer_id, id);
