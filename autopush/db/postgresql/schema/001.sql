-- Version 1 of the store in PostgreSQL. Applied inside one transaction by
-- autopush/db/postgresql/schema.py, or by an administrator with psql -1 -f.
-- Never change a released file: add 002.sql with what leads from here to there.
--
-- uaid: 32 hex digits, or 64 (HMAC-SHA256) where key_hash is set. Times are seconds.
-- Text is compared byte by byte (COLLATE "C"), as sort keys require.

CREATE TABLE autopush_schema (
    version integer PRIMARY KEY
);

-- Router records: an object without the uaid; an open map, so unknown attributes survive.
-- Every hello changes one; the room left in a page keeps its index entry as it is.
CREATE TABLE users (
    uaid text COLLATE "C" PRIMARY KEY,
    record jsonb NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- One row per user who ever had a channel; it stays when the last channel is removed.
-- pointer: sort-key timestamp (microseconds) up to which timestamped messages were read.
CREATE TABLE channel_rows (
    uaid text COLLATE "C" PRIMARY KEY,
    pointer bigint,
    expiry bigint NOT NULL
);

CREATE TABLE channels (
    uaid text COLLATE "C",
    chid text COLLATE "C",
    PRIMARY KEY (uaid, chid)
);

-- headers: text of a JSON object, NULL for a message without payload.
-- live: 1 for what was accepted while its user agent was connected, else NULL.
-- urgency: very-low, low or high; NULL for normal.
-- Payloads are encrypted: nothing can be gained by compressing them. Most stay in their row.
CREATE TABLE messages (
    uaid text COLLATE "C",
    sortkey text COLLATE "C",
    updateid text COLLATE "C",
    data text,
    headers text,
    ttl bigint NOT NULL,
    timestamp bigint NOT NULL,
    expiry bigint NOT NULL,
    live smallint,
    urgency text,
    PRIMARY KEY (uaid, sortkey)
) WITH (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0.02);

ALTER TABLE messages ALTER COLUMN data SET STORAGE EXTERNAL;

-- For the sweep.
CREATE INDEX messages_by_expiry ON messages (expiry);
CREATE INDEX channel_rows_by_expiry ON channel_rows (expiry);

INSERT INTO autopush_schema (version) VALUES (1);
