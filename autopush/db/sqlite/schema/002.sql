-- Version 2: what was accepted while its user agent was connected is no backlog (spec/storage 3.2).
-- live: 1 for such a message, else NULL.

ALTER TABLE messages ADD COLUMN live INTEGER;
