-- A hold ends as issued when nothing of it is held any more and some of it left with a parcel.
ALTER TABLE holds DROP CONSTRAINT holds_state_check;
ALTER TABLE holds ADD CONSTRAINT holds_state_check CHECK (state IN ('held', 'refused', 'released', 'issued'));

-- The parcels of an order that have left, each once, with what left in them: nothing where nothing was held.
CREATE TABLE hold_issues (
    order_id uuid   NOT NULL REFERENCES holds,
    parcel   int    NOT NULL,
    units    bigint NOT NULL CHECK (units >= 0),
    PRIMARY KEY (order_id, parcel)
);
