-- Submits without a key are found by age through submissions_unanswered_by_age; this index serves the others. So each
-- submit is in one of the two, where it was in both.
CREATE INDEX submissions_keyed_by_age ON submissions (created_us) WHERE key_hash IS NOT NULL;
DROP INDEX submissions_by_age;
