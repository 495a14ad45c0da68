-- Orders. The row is the lock: whoever decides about an order holds it, in order_id order.
CREATE TABLE orders (
    order_id           uuid PRIMARY KEY,           -- uuid7: in the order of arrival
    channel            text NOT NULL,
    external_reference text NOT NULL,
    fingerprint        bytea NOT NULL,             -- HMAC of the request: the same reference with another body is refused
    partition          smallint NOT NULL,          -- of the order's key in Kafka: whose consumer judges its deadline
    state              text NOT NULL CHECK (state IN ('placed', 'paying', 'confirmed', 'rejected', 'cancelled', 'expired', 'closed')),
    version            bigint NOT NULL,
    customer_id        uuid,                       -- as placed; replaced by what identification says
    recipient_id       uuid,
    currency           text NOT NULL,
    expected_total     numeric,
    prepaid            boolean NOT NULL,
    payment_token      text,
    request            jsonb NOT NULL,             -- lines, coupon, points, destination: no personal data
    identified         boolean NOT NULL DEFAULT false,
    held               boolean NOT NULL DEFAULT false,
    priced_lines       jsonb,                      -- filled: the order is priced
    total              numeric,
    cancelled_lines    jsonb NOT NULL DEFAULT '{}', -- units cancelled per line
    cancelled_amount   numeric NOT NULL DEFAULT 0,
    reason             text,
    traceparent        text NOT NULL,              -- of the request that placed it: payment and deadline go on from there
    deadline_at        timestamptz,                -- an open order has one
    placed_at          timestamptz NOT NULL,       -- business time
    recorded_at        timestamptz NOT NULL DEFAULT now(),
    changed_at         timestamptz NOT NULL DEFAULT now(),
    UNIQUE (channel, external_reference),
    CONSTRAINT ends_by_itself CHECK ((state IN ('placed', 'paying')) = (deadline_at IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX orders_by_deadline ON orders (partition, deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX orders_by_reference ON orders (external_reference);
CREATE INDEX orders_by_state ON orders (state, order_id);
CREATE INDEX orders_by_customer ON orders (customer_id, order_id);

-- What happened to an order, as its events told it.
CREATE TABLE timeline (
    order_id    uuid NOT NULL REFERENCES orders,
    sequence    bigint NOT NULL,
    type        text NOT NULL,
    cause       uuid NOT NULL,
    detail      jsonb NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (order_id, sequence)
);

-- The one payment of an order. `due_at` is when the provider must next be asked; no call is made inside a transaction.
CREATE TABLE payments (
    payment_id         uuid PRIMARY KEY,           -- also the idempotency key at the provider
    order_id           uuid NOT NULL UNIQUE REFERENCES orders,
    provider           text NOT NULL,
    token              text,
    amount             numeric NOT NULL,
    currency           text NOT NULL,
    state              text NOT NULL CHECK (state IN ('requested', 'pending', 'action_required', 'captured', 'declined', 'cancelled')),
    captured           numeric NOT NULL DEFAULT 0,
    refunded           numeric NOT NULL DEFAULT 0,
    provider_reference text,
    redirect_url       text,
    closing            boolean NOT NULL DEFAULT false, -- no longer wanted: to be voided unless it is captured already
    attempts           int NOT NULL DEFAULT 0,
    due_at             timestamptz,
    CHECK (refunded <= captured)
) WITH (fillfactor = 70);
CREATE INDEX payments_due ON payments (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE refunds (
    refund_id  uuid PRIMARY KEY,                   -- also the idempotency key at the provider
    payment_id uuid NOT NULL REFERENCES payments,
    order_id   uuid NOT NULL REFERENCES orders,
    amount     numeric NOT NULL CHECK (amount > 0),
    currency   text NOT NULL,
    reason     text NOT NULL,
    state      text NOT NULL CHECK (state IN ('requested', 'refunded')),
    attempts   int NOT NULL DEFAULT 0,
    declines   int NOT NULL DEFAULT 0,             -- each no is final for its key, so the next try has a new one
    due_at     timestamptz
);
CREATE INDEX refunds_due ON refunds (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX refunds_by_order ON refunds (order_id);

-- Personal data on its way: readable by the customer service only, deleted once the order is identified or ended.
CREATE TABLE sealed_buyers (
    order_id uuid PRIMARY KEY REFERENCES orders,
    key_id   uuid NOT NULL,
    sealed   text NOT NULL
);
CREATE INDEX sealed_buyers_by_key ON sealed_buyers (key_id);

-- What other services own and intake needs to know: which SKUs exist, and the keys to seal with.
CREATE TABLE known_items (
    sku     text PRIMARY KEY,
    active  boolean NOT NULL,
    version bigint NOT NULL
);
CREATE TABLE sealing_keys (
    key_id     uuid PRIMARY KEY,
    public_key text NOT NULL,
    valid_from timestamptz NOT NULL,
    retired    boolean NOT NULL DEFAULT false
);
