-- Version 3: how urgent a message is (RFC 8030 5.3, spec/broadcasts 2).
-- urgency: very-low, low or high; NULL for normal.

ALTER TABLE messages ADD COLUMN urgency TEXT;
