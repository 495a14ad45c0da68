-- Dead letters that an operator had applied after all, or that turned out to be applied already. Kept for ever: the
-- inbox forgets.
CREATE TABLE redrives (
    consumer    text NOT NULL,
    event_id    uuid NOT NULL,
    letter      bigint NOT NULL,      -- its offset in the dead-letter topic
    outcome     text NOT NULL CHECK (outcome IN ('applied', 'already_applied')),
    redriven_by text NOT NULL,
    redriven_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);

-- Dead letters of a place that were applied later. They stay counted as dead_lettered.
ALTER TABLE consumer_offsets ADD COLUMN redriven bigint NOT NULL DEFAULT 0;
