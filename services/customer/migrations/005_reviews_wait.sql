-- A tier falls only by business time up to which every settlement has been read: partitions of the log are not read at
-- the same pace, and one that is ahead says nothing of what lies in the others.
ALTER TABLE business_clock
    ADD COLUMN next       timestamptz, -- an `at` that becomes read_to when all partitions have been read since
    ADD COLUMN next_since timestamptz, -- database time at which the clock stood at `next`
    ADD COLUMN read_to    timestamptz; -- business time up to which reviews may go
COMMENT ON COLUMN business_clock.at IS 'the latest business time shown by a settlement, in any partition';

-- Per partition of orders the database time at which all that was in the log then has been read. Written only while
-- business_clock waits for it.
CREATE TABLE orders_read (
    partition int PRIMARY KEY,
    until     timestamptz NOT NULL
) WITH (fillfactor = 50);
