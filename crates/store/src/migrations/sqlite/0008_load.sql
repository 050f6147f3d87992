-- What one request costs grows with the logarithm of what is stored.

-- Ids of tasks begin with the time at which they were made: rows are added at the end of this index.
CREATE INDEX deliveries_by_task ON deliveries (task_id);

-- Submits without a key are looked for by what they are; those with a key, by their key.
DROP INDEX submissions_by_fingerprint;
CREATE INDEX submissions_unanswered ON submissions (fingerprint, created_us) WHERE key_hash IS NULL;
CREATE INDEX submissions_unanswered_by_age ON submissions (created_us) WHERE key_hash IS NULL;
