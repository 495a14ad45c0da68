-- What buyers were shown. The one order that redeems a quote holds it; when that order ends it is open again, and once
-- the order is confirmed it is spent for good. Open ones are deleted some time after their end.
CREATE TABLE quotes (
    quote_id    uuid PRIMARY KEY,
    asked       jsonb NOT NULL,       -- what an order must agree with
    priced      jsonb NOT NULL,       -- what it then costs
    valid_until timestamptz NOT NULL,
    state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'held', 'spent')),
    order_id    uuid UNIQUE,
    CONSTRAINT open_or_of_an_order CHECK ((state = 'open') = (order_id IS NULL))
);
CREATE INDEX open_quotes ON quotes (valid_until) WHERE state = 'open';
