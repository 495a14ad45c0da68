-- How far Kafka has what this database said, so that a database older than the log is not taken for the present one.

-- One above the highest offset at which the broker acknowledged an event of this database. Raised in the statement that
-- takes acknowledged events out of the outbox: an event of ours in the log, from here on, is still in the outbox.
CREATE TABLE relayed (
    topic       text   NOT NULL,
    partition   int    NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

-- A row here: events went to Kafka without being noted above. The next relay that notes them takes the log's ends as
-- they are, and removes the row. A database that 0.2 has worked with begins so; a fresh one does not.
CREATE TABLE log_to_adopt (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    since    timestamptz NOT NULL DEFAULT now()
);
INSERT INTO log_to_adopt (since)
SELECT now() WHERE EXISTS (SELECT FROM consumer_offsets) OR EXISTS (SELECT FROM inbox) OR EXISTS (SELECT FROM outbox);

-- A relay of 0.2, beside newer processes or after a way back to it, notes nothing: once per pass it leaves its mark.
CREATE FUNCTION relayed_unnoted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO log_to_adopt DEFAULT VALUES ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER relayed_unnoted AFTER DELETE ON outbox
    FOR EACH STATEMENT WHEN (current_setting('isthmus.notes_relayed', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION relayed_unnoted();
