-- Prices contain tax. Of the lists in an order's currency, the one with the highest priority that has the SKU wins;
-- two of the same priority would leave that open, so there are none.
CREATE TABLE price_lists (
    code     text PRIMARY KEY,
    name     text NOT NULL,
    currency text NOT NULL,
    priority int  NOT NULL,
    CONSTRAINT one_list_wins UNIQUE (currency, priority)
);

-- The latest valid_from up to the time of the order is in force. Rows are added, and corrected only in place.
CREATE TABLE list_prices (
    sku        text NOT NULL,
    price_list text NOT NULL REFERENCES price_lists,
    unit_price numeric NOT NULL CHECK (unit_price >= 0),
    valid_from timestamptz NOT NULL,
    PRIMARY KEY (sku, price_list, valid_from)
);

-- Whoever changes prices of a SKU locks its row here first, in SKU order.
CREATE TABLE price_versions (
    sku     text PRIMARY KEY,
    version bigint NOT NULL DEFAULT 0 -- of what PRICES says
) WITH (fillfactor = 80);

-- What other services said: who has which tier, which SKUs exist. An older event never overwrites a newer one.
CREATE TABLE tiers (
    customer_id uuid PRIMARY KEY,
    tier        text NOT NULL,
    version     bigint NOT NULL
);
CREATE TABLE items (
    sku       text PRIMARY KEY,
    tax_class text NOT NULL,
    version   bigint NOT NULL
);

-- Discounts stack by priority, lower first; a tier that takes something off and a coupon never share one.
CREATE TABLE tier_rules (
    tier     text PRIMARY KEY,
    percent  numeric NOT NULL CHECK (percent BETWEEN 0 AND 100),
    priority int NOT NULL DEFAULT 100
);
INSERT INTO tier_rules (tier, percent) VALUES ('base', 0), ('silver', 3), ('gold', 5);

-- What a point is worth, in major units; 0.01 where nothing is said.
CREATE TABLE point_values (
    currency text PRIMARY KEY,
    value    numeric NOT NULL CHECK (value > 0)
);

-- Exactly one of percent and amount. `used` counts the uses held; the database, too, keeps it within the limit.
CREATE TABLE coupons (
    code               text PRIMARY KEY,
    percent            numeric CHECK (percent > 0 AND percent <= 100),
    amount             numeric CHECK (amount > 0),
    currency           text,
    valid_from         timestamptz,
    valid_until        timestamptz,
    minimum            numeric,
    limit_total        bigint CHECK (limit_total >= 0),
    limit_per_customer bigint CHECK (limit_per_customer >= 0),
    priority           int NOT NULL,
    used               bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    CONSTRAINT percent_or_amount CHECK (num_nonnulls(percent, amount) = 1),
    CONSTRAINT sums_have_a_currency CHECK (currency IS NOT NULL OR (amount IS NULL AND minimum IS NULL)),
    CONSTRAINT never_overused CHECK (used <= limit_total)
) WITH (fillfactor = 50);

CREATE TABLE coupon_uses (
    coupon      text NOT NULL REFERENCES coupons,
    order_id    uuid NOT NULL,
    customer_id uuid,          -- null: the order came from a guest
    state       text NOT NULL CHECK (state IN ('held', 'released')),
    PRIMARY KEY (coupon, order_id)
);
CREATE INDEX coupon_uses_of_customer ON coupon_uses (coupon, customer_id) WHERE state = 'held';

-- One row per order seen, whatever became of it, so that late and repeated events find their answer.
CREATE TABLE order_prices (
    order_id    uuid PRIMARY KEY,
    state       text NOT NULL CHECK (state IN ('priced', 'refused', 'ended')), -- ended: before it was seen
    version     bigint NOT NULL,
    customer_id uuid,
    coupon      text,          -- whose use it holds
    answer      jsonb,         -- what was said: OrderPriced or PriceRefused
    seen_at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 90);
