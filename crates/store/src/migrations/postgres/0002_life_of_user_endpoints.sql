-- When a task of the endpoint was submitted or ended last, or its manager was told to start it; absent: not since this migration.
ALTER TABLE endpoint_tasks ADD COLUMN used_us BIGINT;
INSERT INTO endpoint_tasks (endpoint_id, waiting, taken, succeeded, failed, late)
    SELECT id, 0, 0, 0, 0, 0 FROM endpoints WHERE manager_id IS NOT NULL ON CONFLICT (endpoint_id) DO NOTHING;
-- Nobody knows when: today, so that none is forgotten too early.
UPDATE endpoint_tasks SET used_us = CAST(extract(epoch FROM now()) AS BIGINT) * 1000000;

-- Why a user endpoint ended last, or could not be started, and when that was reported.
ALTER TABLE endpoints ADD COLUMN end_reason TEXT COLLATE "C";
ALTER TABLE endpoints ADD COLUMN end_us BIGINT;
