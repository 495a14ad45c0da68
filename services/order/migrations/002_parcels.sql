-- From confirmed to closed: parcels, and what an order is worth in the books.
ALTER TABLE orders
    ADD COLUMN fulfilment     text NOT NULL DEFAULT 'carrier' CHECK (fulfilment IN ('carrier', 'channel', 'immediate')),
    ADD COLUMN channel_fee    numeric NOT NULL DEFAULT 0, -- what the channel of a prepaid order keeps of it
    ADD COLUMN allocations    jsonb,                      -- units held by warehouse and SKU: parcels are planned from it
    ADD COLUMN sale           jsonb,                      -- goods, discount, tax, points_value: what stands in the books
    ADD COLUMN point_value    numeric,
    ADD COLUMN cancellation   jsonb,                      -- waits until the carrier has given parcels back
    ADD COLUMN settled        boolean NOT NULL DEFAULT false,
    ADD COLUMN points_settled boolean NOT NULL DEFAULT false;

-- Orders that were priced before: their confirmation books the same.
UPDATE orders SET sale = (
    SELECT jsonb_build_object(
        'goods', sum((line ->> 'total')::numeric + (line ->> 'discount')::numeric)::text,
        'discount', sum((line ->> 'discount')::numeric)::text,
        'tax', sum((line ->> 'tax')::numeric)::text,
        'points_value', (sum((line ->> 'total')::numeric) - total)::text)
    FROM jsonb_array_elements(priced_lines) AS line)
WHERE state IN ('placed', 'paying') AND priced_lines IS NOT NULL;

CREATE INDEX orders_settled ON orders (changed_at) WHERE settled AND state = 'confirmed';

-- What goes from one warehouse. `due_at` is when the carrier must next be asked, or a channel reminded: no call is made
-- inside a transaction, and what is not final always has one.
CREATE TABLE parcels (
    order_id          uuid NOT NULL REFERENCES orders,
    number            smallint NOT NULL,
    warehouse         text NOT NULL,
    items             jsonb NOT NULL,                -- units by SKU
    state             text NOT NULL CHECK (state IN ('planned', 'booking', 'booked', 'recalling', 'shipped', 'delivered',
                                                     'lost', 'refused', 'dropped')),
    carrier           text,
    carrier_reference text,
    tracking          text,
    promised_at       timestamptz,
    price             numeric NOT NULL,
    currency          text,
    bookings          int NOT NULL,                  -- undone ones: each has a key of its own at the carrier
    late              boolean NOT NULL,
    issued            boolean NOT NULL,              -- inventory has told what left
    made_good         boolean NOT NULL,
    since             timestamptz NOT NULL DEFAULT now(), -- when the state last changed
    attempts          int NOT NULL DEFAULT 0,        -- since then
    due_at            timestamptz,
    PRIMARY KEY (order_id, number),
    CONSTRAINT moves_on CHECK ((state IN ('delivered', 'lost', 'refused', 'dropped')) = (due_at IS NULL))
) WITH (fillfactor = 70);
CREATE INDEX parcels_due ON parcels (due_at) WHERE due_at IS NOT NULL;

-- What notify told, or did not tell, the customer: shown in the order's timeline.
CREATE TABLE care_steps (
    order_id    uuid NOT NULL REFERENCES orders,
    sequence    bigint NOT NULL,
    type        text NOT NULL,
    cause       uuid NOT NULL,
    detail      jsonb NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (order_id, sequence)
);
