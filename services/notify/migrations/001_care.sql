-- One row per order seen, so that its buyer is known, and nothing is triggered once it has ended in a no.
CREATE TABLE care_orders (
    order_id    uuid PRIMARY KEY,
    customer_id uuid,
    version     bigint NOT NULL,
    ended       boolean NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);

-- What was triggered: at most once per order and trigger.
CREATE TABLE care (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id    uuid NOT NULL REFERENCES care_orders,
    trigger     text NOT NULL,
    customer_id uuid,
    reason      text,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT once_per_order UNIQUE (order_id, trigger)
);
