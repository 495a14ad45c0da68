-- What a message needs of its order beyond its buyer, and what goes with it in the same basket.
ALTER TABLE care_orders
    ADD channel   text,                             -- null until the order is seen placed
    ADD reference text,                             -- the order's number as its buyer knows it
    ADD skus      text[] NOT NULL DEFAULT '{}',     -- at most 100 of them
    ADD settled   boolean NOT NULL DEFAULT false,
    ADD spoiled   boolean NOT NULL DEFAULT false;   -- a parcel was lost or refused: nothing to thank for
CREATE INDEX care_orders_by_sku ON care_orders USING gin (skus);
CREATE INDEX care_orders_by_time ON care_orders (seen_at) WHERE NOT ended;

ALTER TABLE care
    ADD state   text NOT NULL DEFAULT 'triggered' CHECK (state IN ('triggered', 'sent', 'failed')),
    ADD sent_at timestamptz,
    ADD failure text,
    ADD CONSTRAINT what_became_of_it CHECK ((state = 'sent') = (sent_at IS NOT NULL)
                                        AND (state = 'failed') = (failure IS NOT NULL));

-- Messages that are due: queued with their care, deleted with its outcome. Nothing personal: the address is looked up
-- when a message is sent. Whoever claims one raises `attempts` and puts `due_at` to the end of the lease.
CREATE TABLE messages (
    order_id        uuid NOT NULL,
    trigger         text NOT NULL,
    due_at          timestamptz NOT NULL,
    attempts        int NOT NULL DEFAULT 0,
    handing_over_at timestamptz,            -- from here on the mail server may have it: never sent again
    facts           jsonb NOT NULL,         -- of the event that triggered it: total, promised_at, skus
    cause_id        uuid NOT NULL,          -- the CareTriggered that its outcome follows from
    correlation_id  text NOT NULL,
    traceparent     text NOT NULL,
    queued_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (order_id, trigger),
    FOREIGN KEY (order_id, trigger) REFERENCES care (order_id, trigger)
) WITH (fillfactor = 80);
CREATE INDEX messages_due ON messages (due_at);

-- An own copy of products: what they are called, and whether they can be had. An event that comes late finds a newer
-- version in place.
CREATE TABLE products (
    sku           text PRIMARY KEY,
    name          text,                       -- null until the product master has said it
    category      text,
    active        boolean NOT NULL DEFAULT false,
    item_version  bigint NOT NULL DEFAULT 0,
    available     bigint NOT NULL DEFAULT 0,
    stock_version bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 80);
