CREATE TABLE warehouses (
    code     text PRIMARY KEY,
    name     text NOT NULL,
    country  text NOT NULL,      -- ISO 3166 alpha-2
    priority int  NOT NULL       -- lower is tried first
);

-- The product master. Whoever changes a SKU's stock locks its row here first, in SKU order.
CREATE TABLE items (
    sku           text PRIMARY KEY,
    name          text NOT NULL,
    category      text,
    supplier      text,
    unit          text NOT NULL,
    weight        int,                      -- grams
    tax_class     text NOT NULL,
    active        boolean NOT NULL,
    unit_cost     numeric(18, 6),           -- moving average
    cost_currency text,
    version       bigint NOT NULL DEFAULT 0, -- of what ITEMS says
    stock_version bigint NOT NULL DEFAULT 0  -- of what STOCK says
);

CREATE TABLE stock (
    sku       text NOT NULL REFERENCES items,
    warehouse text NOT NULL REFERENCES warehouses,
    on_hand   bigint NOT NULL,
    reserved  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (sku, warehouse),
    CONSTRAINT never_oversold CHECK (0 <= reserved AND reserved <= on_hand)
) WITH (fillfactor = 70);

-- What came in and went out: on_hand is their sum. Rows are added, never changed.
CREATE TABLE movements (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku         text NOT NULL,
    warehouse   text NOT NULL,
    quantity    bigint NOT NULL CHECK (quantity <> 0),
    kind        text NOT NULL,               -- receipt, adjustment
    reason      text,
    actor       text NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX movements_by_sku ON movements (sku, id);

-- One row per order seen, whatever became of it, so that late and repeated events find their answer.
CREATE TABLE holds (
    order_id uuid PRIMARY KEY,
    state    text NOT NULL CHECK (state IN ('held', 'refused', 'released')),
    version  bigint NOT NULL,
    seen_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);

CREATE TABLE hold_lines (
    order_id  uuid NOT NULL REFERENCES holds,
    sku       text NOT NULL,
    warehouse text NOT NULL,
    quantity  bigint NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, sku, warehouse)
);
CREATE INDEX hold_lines_by_sku ON hold_lines (sku, warehouse);
