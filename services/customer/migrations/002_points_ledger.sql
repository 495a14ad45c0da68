-- Points become a ledger of their own: an order's points leave the balance when they are taken, and not only in the
-- end. Processes that still count held points as part of the balance must be stopped before this is applied; one that
-- runs on all the same is refused at its commits, which it tries again for as long (see the end).

ALTER TABLE customers DROP CONSTRAINT points_covered;
ALTER TABLE customers
    ADD COLUMN tier_pinned boolean NOT NULL DEFAULT false, -- put there by somebody: kept whatever is bought
    ADD COLUMN tier_review_at timestamptz;                 -- business time at which the tier falls unless more is earned
COMMENT ON COLUMN customers.points_balance IS 'the sum of points_entries';
COMMENT ON COLUMN customers.points_held IS 'taken by orders that are under way; no part of the balance';
CREATE INDEX customers_by_tier_review ON customers (tier_review_at) WHERE tier_review_at IS NOT NULL;

ALTER TABLE identifications DROP CONSTRAINT identifications_state_check;
ALTER TABLE identifications ADD CONSTRAINT identifications_state_check
    CHECK (state IN ('seen', 'identified', 'refused', 'ended', 'settled'));
COMMENT ON COLUMN identifications.points_held IS 'what the order has taken, until it ends, gives it back or is settled';

ALTER TABLE points_entries
    ADD COLUMN number   bigint GENERATED ALWAYS AS IDENTITY, -- per customer in the order in which the balance changed
    ADD COLUMN order_id uuid REFERENCES identifications,
    ALTER COLUMN reason DROP NOT NULL,
    ALTER COLUMN actor DROP NOT NULL,
    ADD CONSTRAINT known_kind CHECK (kind IN ('goodwill', 'redeemed', 'released', 'part_released', 'earned')),
    ADD CONSTRAINT of_an_order CHECK (
        CASE kind WHEN 'goodwill' THEN order_id IS NULL AND reason IS NOT NULL AND actor IS NOT NULL
        ELSE order_id IS NOT NULL AND reason IS NULL AND actor IS NULL AND (points < 0) = (kind = 'redeemed') END);
DROP INDEX points_entries_by_customer;
CREATE UNIQUE INDEX points_entries_by_customer ON points_entries (customer_id, number);
CREATE UNIQUE INDEX points_entries_once ON points_entries (order_id, kind)
    WHERE kind IN ('redeemed', 'released', 'earned');
CREATE INDEX points_entries_earned ON points_entries (customer_id, occurred_at) INCLUDE (points) WHERE kind = 'earned';

-- The latest business time that settlements have shown, in whole hours. One row, and it only moves forward.
CREATE TABLE business_clock (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    at       timestamptz NOT NULL
);

-- What orders under way hold is taken now.
INSERT INTO points_entries (entry_id, customer_id, points, kind, order_id, occurred_at)
SELECT gen_random_uuid(), coalesce(a.customer_id, i.customer_id), -i.points_held, 'redeemed', i.order_id, i.occurred_at
FROM identifications i LEFT JOIN aliases a ON a.alias = i.customer_id
WHERE i.points_held > 0 ORDER BY i.recorded_at, i.order_id;
UPDATE customers SET points_balance = points_balance - points_held WHERE points_held > 0;
ALTER TABLE customers ADD CONSTRAINT points_not_negative CHECK (points_balance >= 0 AND points_held >= 0);

-- Until now every other tier was put by somebody.
UPDATE customers SET tier_pinned = true WHERE tier <> 'base';

-- The guard: whatever runs, an order holds what entries have taken for it, and a customer what the orders hold. A process
-- that holds or gives back points without an entry would make some, or lose some. It is looked at when the transaction
-- commits, and only where points held have changed. "lock_not_available" is no word about the message at hand: a
-- consumer tries again, and sets nothing aside.
CREATE INDEX points_entries_of_order ON points_entries (order_id) INCLUDE (points, kind) WHERE order_id IS NOT NULL;
CREATE INDEX identifications_holding ON identifications (customer_id) WHERE points_held > 0;

CREATE FUNCTION held_by_order_is_taken() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    held  bigint;
    taken bigint;
BEGIN
    SELECT points_held INTO held FROM identifications WHERE order_id = NEW.order_id AND state <> 'settled';
    SELECT -coalesce(sum(points), 0) INTO taken FROM points_entries WHERE order_id = NEW.order_id AND kind <> 'earned';
    IF held <> taken THEN
        RAISE EXCEPTION 'order % holds % points, its entries have taken %: an old release runs', NEW.order_id, held, taken
            USING ERRCODE = 'lock_not_available';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER held_is_taken AFTER INSERT ON identifications DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.points_held > 0) EXECUTE FUNCTION held_by_order_is_taken();
CREATE CONSTRAINT TRIGGER held_stays_taken AFTER UPDATE ON identifications DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.points_held <> OLD.points_held) EXECUTE FUNCTION held_by_order_is_taken();

CREATE FUNCTION held_of_customer_is_held() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    held   bigint;
    orders bigint;
BEGIN
    SELECT points_held INTO held FROM customers WHERE customer_id = NEW.customer_id;
    SELECT coalesce(sum(points_held), 0) INTO orders FROM identifications
    WHERE points_held > 0 AND (customer_id = NEW.customer_id
       OR customer_id IN (SELECT alias FROM aliases WHERE aliases.customer_id = NEW.customer_id));
    IF held <> orders THEN
        RAISE EXCEPTION 'customer %: % points held, % by orders: an old release runs', NEW.customer_id, held, orders
            USING ERRCODE = 'lock_not_available';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER held_by_orders AFTER UPDATE ON customers DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.points_held <> OLD.points_held) EXECUTE FUNCTION held_of_customer_is_held();
