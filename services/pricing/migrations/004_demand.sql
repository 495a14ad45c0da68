-- Units asked for per SKU and window of business time, whether or not there was stock. A signal and a copy: deleted some
-- time after the last measurement, and measured again from the log when it is wanted.
CREATE TABLE demand (
    sku          text NOT NULL,
    window_start timestamptz NOT NULL,
    window_end   timestamptz NOT NULL CHECK (window_end > window_start),
    units        bigint NOT NULL,
    orders       bigint NOT NULL,
    measured_at  timestamptz NOT NULL, -- real time, by the clock of who measured it
    PRIMARY KEY (sku, window_start)
);
CREATE INDEX demand_by_measurement ON demand (measured_at);
