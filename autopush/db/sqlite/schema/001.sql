-- Version 1 of the embedded store (spec/storage 17.7). Applied inside one transaction by
-- autopush/db/sqlite_schema.py, which also sets user_version to the number of the file.
-- Never change a released file: add 002.sql with what leads from here to there.
--
-- uaid: 32 hex digits, or 64 (HMAC-SHA256) where key_hash is set. Times are seconds.
-- Text compares byte by byte (BINARY), as sort keys require.

-- Router records: JSON object without the uaid; an open map, so unknown attributes survive.
CREATE TABLE users (
    uaid TEXT NOT NULL PRIMARY KEY,
    record TEXT NOT NULL
) WITHOUT ROWID;

-- One row per user who ever had a channel; it stays when the last channel is removed.
-- pointer: sort-key timestamp (microseconds) up to which timestamped messages were read.
CREATE TABLE channel_rows (
    uaid TEXT NOT NULL PRIMARY KEY,
    pointer INTEGER,
    expiry INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE channels (
    uaid TEXT NOT NULL,
    chid TEXT NOT NULL,
    PRIMARY KEY (uaid, chid)
) WITHOUT ROWID;

-- A table with a rowid: the rows are long, and moving them about in a key-ordered tree costs
-- four times as much as a separate index.
-- headers: JSON object, NULL for a message without payload.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    uaid TEXT NOT NULL,
    sortkey TEXT NOT NULL,
    updateid TEXT,
    data TEXT,
    headers TEXT,
    ttl INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    expiry INTEGER NOT NULL
);

CREATE UNIQUE INDEX messages_by_key ON messages (uaid, sortkey);

-- For the sweep.
CREATE INDEX messages_by_expiry ON messages (expiry);
CREATE INDEX channel_rows_by_expiry ON channel_rows (expiry);
