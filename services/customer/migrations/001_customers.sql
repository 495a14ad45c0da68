-- Everything personal is encrypted with the customer's own data key; hashes are HMACs keyed from the master key.

CREATE TABLE customers (
    customer_id    uuid PRIMARY KEY,
    version        bigint NOT NULL,          -- of what CUSTOMERS says
    channel        text NOT NULL,            -- where we first met
    tier           text NOT NULL,
    guest          boolean NOT NULL,
    points_balance bigint NOT NULL DEFAULT 0, -- the sum of points_entries
    points_held    bigint NOT NULL DEFAULT 0, -- the sum over identifications
    data_key       bytea,                     -- wrapped; without it nothing of this customer can be read again
    registered_at  timestamptz NOT NULL,
    recorded_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT points_covered CHECK (0 <= points_held AND points_held <= points_balance)
) WITH (fillfactor = 80);

-- Ids that customers had before they were merged into another.
CREATE TABLE aliases (
    alias       uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers
);
CREATE INDEX aliases_by_customer ON aliases (customer_id);

-- By what a buyer is recognised. A row without a customer reserves the identity within one transaction only: whoever
-- wants the same identity waits for it. `collision` numbers different values that have one hash.
CREATE TABLE identities (
    hash        bytea NOT NULL,
    collision   int NOT NULL DEFAULT 0,
    kind        text NOT NULL CHECK (kind IN ('channel', 'email')),
    customer_id uuid REFERENCES customers,
    value       bytea,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (hash, collision)
);
CREATE INDEX identities_by_customer ON identities (customer_id);

-- Under what a customer was seen; found by hash, never joined by it.
CREATE TABLE contacts (
    customer_id uuid NOT NULL REFERENCES customers,
    kind        text NOT NULL CHECK (kind IN ('name', 'email', 'phone')),
    hash        bytea NOT NULL,
    value       bytea NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (customer_id, kind, hash)
);
CREATE INDEX contacts_by_hash ON contacts (hash, customer_id);

CREATE TABLE name_words (
    hash        bytea NOT NULL,
    customer_id uuid NOT NULL REFERENCES customers,
    PRIMARY KEY (hash, customer_id)
);
CREATE INDEX name_words_by_customer ON name_words (customer_id);

-- One row per order seen, whatever became of it, so that late and repeated events find their answer.
-- `seen` exists within one transaction only.
CREATE TABLE identifications (
    order_id    uuid PRIMARY KEY,
    state       text NOT NULL DEFAULT 'seen' CHECK (state IN ('seen', 'identified', 'refused', 'ended')),
    version     bigint NOT NULL DEFAULT 0,    -- of what IDENTIFICATIONS says
    customer_id uuid REFERENCES customers,
    points_held bigint NOT NULL DEFAULT 0 CHECK (points_held >= 0),
    channel     text,                         -- unknown when the order ended before it was seen
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX identifications_by_customer ON identifications (customer_id, recorded_at, order_id);

-- Where an order goes, as it was said when it was placed. Never changed.
CREATE TABLE recipients (
    recipient_id uuid PRIMARY KEY,
    order_id     uuid NOT NULL UNIQUE REFERENCES identifications,
    customer_id  uuid NOT NULL REFERENCES customers,
    content      bytea NOT NULL,
    note         bytea,
    recorded_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX recipients_by_customer ON recipients (customer_id);

-- What changed a balance of points. Rows are added, never changed.
CREATE TABLE points_entries (
    entry_id    uuid PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers,
    points      bigint NOT NULL CHECK (points <> 0),
    kind        text NOT NULL,                -- goodwill
    reason      bytea NOT NULL,
    actor       text NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX points_entries_by_customer ON points_entries (customer_id, recorded_at, entry_id);

-- Every consent given or withdrawn; the last one per purpose holds. Rows are added, never changed.
CREATE TABLE consents (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers,
    purpose     text NOT NULL,
    granted     boolean NOT NULL,
    source      text NOT NULL,
    actor       text NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX consents_by_customer ON consents (customer_id, purpose, id);

-- Who read whose personal data over HTTP, and when. Rows are added, never changed.
CREATE TABLE accesses (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    actor        text NOT NULL,
    action       text NOT NULL,
    customer_id  uuid,                        -- null for a search that found nobody
    recipient_id uuid,
    recorded_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX accesses_by_customer ON accesses (customer_id, id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are added, never changed', TG_TABLE_NAME;
END $$;
CREATE TRIGGER only_added BEFORE UPDATE OR DELETE OR TRUNCATE ON points_entries EXECUTE FUNCTION refuse_change();
CREATE TRIGGER only_added BEFORE UPDATE OR DELETE OR TRUNCATE ON consents EXECUTE FUNCTION refuse_change();
CREATE TRIGGER only_added BEFORE UPDATE OR DELETE OR TRUNCATE ON accesses EXECUTE FUNCTION refuse_change();

-- X25519 key pairs with which new orders are sealed; the private half, wrapped, until nothing needs it any more.
CREATE TABLE sealing_keys (
    key_id       uuid PRIMARY KEY,
    public_key   bytea NOT NULL,
    private_key  bytea,
    valid_from   timestamptz NOT NULL,
    destroyed_at timestamptz,
    CONSTRAINT destroyed_is_gone CHECK ((private_key IS NULL) = (destroyed_at IS NOT NULL))
);
CREATE INDEX sealing_keys_by_age ON sealing_keys (valid_from);
