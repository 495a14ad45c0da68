-- How often the provider has said no to a refund: each no is final for its idempotency key, so the next try has a new one.
ALTER TABLE refunds ADD COLUMN declines int NOT NULL DEFAULT 0;
