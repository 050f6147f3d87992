-- The oldest migration that a program must know to use this database. A migration that takes away or changes what a program
-- before it uses sets it to its own number.
CREATE TABLE schema_compatibility (
    only_row BIGINT NOT NULL PRIMARY KEY CHECK (only_row = 1),
    oldest_known BIGINT NOT NULL
);
INSERT INTO schema_compatibility (only_row, oldest_known) VALUES (1, 15);

-- One submit has a key: the last, if it came after the one before had become too old to count and before that was deleted.
DELETE FROM submissions WHERE key_hash IS NOT NULL AND EXISTS (SELECT 1 FROM submissions o
    WHERE o.identity_id = submissions.identity_id AND o.key_hash = submissions.key_hash
    AND (o.created_us, o.rowid) > (submissions.created_us, submissions.rowid));
DROP INDEX submissions_by_key;
CREATE UNIQUE INDEX submissions_by_key ON submissions (identity_id, key_hash) WHERE key_hash IS NOT NULL;
-- The service process that is writing the answer; absent: none.
ALTER TABLE submissions ADD COLUMN answered_by BIGINT;
