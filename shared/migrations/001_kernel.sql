-- What every service's database has: what goes out, what came in, and how far.

-- Events on their way to Kafka; the relay deletes what the broker has acknowledged. Debezium's column names, so that
-- its EventRouter can take over. `position` is given after the entity's row lock: in order per entity, not in commit order.
CREATE TABLE outbox (
    position      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id            uuid NOT NULL,
    aggregatetype text NOT NULL, -- the topic
    aggregateid   text NOT NULL, -- the key
    type          text NOT NULL,
    payload       bytea NOT NULL,
    sequence      bigint NOT NULL,
    correlationid text NOT NULL,
    causationid   text,
    traceparent   text NOT NULL,
    source        text NOT NULL,
    headers       jsonb,         -- a dead letter keeps its own, pairs of name and base64
    recorded_at   timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- How far each consumer has come, advanced in the transaction of the effect; every message is counted once.
CREATE TABLE consumer_offsets (
    consumer      text   NOT NULL,
    topic         text   NOT NULL,
    partition     int    NOT NULL,
    start_offset  bigint NOT NULL,
    next_offset   bigint NOT NULL,
    applied       bigint NOT NULL DEFAULT 0,
    duplicate     bigint NOT NULL DEFAULT 0,
    skipped       bigint NOT NULL DEFAULT 0,
    dead_lettered bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer, topic, partition)
) WITH (fillfactor = 50);

-- Which events each consumer has applied, by the day they were recorded (UTC): a relay's repeat finds itself here.
-- Days are dropped whole after the window, so that storage does not grow with events for ever.
CREATE TABLE inbox (
    day      date NOT NULL,
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    PRIMARY KEY (day, consumer, event_id)
) PARTITION BY RANGE (day);
CREATE TABLE inbox_other PARTITION OF inbox DEFAULT;

-- Make the partitions of today and tomorrow, and drop those older than the window (days).
CREATE FUNCTION roll_inbox(window_days int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    day_ date;
    old  text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('isthmus.roll_inbox'));
    FOR day_ IN SELECT current_date + i FROM generate_series(0, 1) AS i LOOP
        IF to_regclass('inbox_' || to_char(day_, 'YYYYMMDD')) IS NULL
           AND NOT EXISTS (SELECT FROM inbox_other WHERE day = day_) THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF inbox FOR VALUES FROM (%L) TO (%L)',
                           'inbox_' || to_char(day_, 'YYYYMMDD'), day_, day_ + 1);
        END IF;
    END LOOP;
    FOR old IN SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^inbox_\d{8}$'
               AND to_date(right(relname, 8), 'YYYYMMDD') < current_date - window_days LOOP
        EXECUTE format('DROP TABLE %I', old);
    END LOOP;
    DELETE FROM inbox_other WHERE day < current_date - window_days;
END $$;

-- Answers to commands that carried an Idempotency-Key: the same key finds the first answer.
CREATE TABLE idempotency_keys (
    subject     text NOT NULL,
    key         text NOT NULL,
    fingerprint bytea NOT NULL,
    status      int NOT NULL,
    answer      jsonb NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subject, key)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
