-- The whole life of functions, endpoints, tasks and results.

-- Code is stored once, by its SHA-256 (what was stored before this migration: by its function's id).
CREATE TABLE function_code (
    hash BLOB NOT NULL PRIMARY KEY,
    code TEXT NOT NULL
);
INSERT INTO function_code (hash, code) SELECT id, code FROM functions;
ALTER TABLE functions ADD COLUMN code_hash BLOB;
UPDATE functions SET code_hash = id;
ALTER TABLE functions DROP COLUMN code;
-- whose members may call it beside the owner
ALTER TABLE functions ADD COLUMN group_id BLOB;
CREATE INDEX functions_by_code ON functions (code_hash);

-- until when nobody may register it
ALTER TABLE endpoints ADD COLUMN locked_until_us BIGINT;
CREATE INDEX endpoints_by_owner ON endpoints (owner_id);

-- How many tasks of each endpoint stand where; kept in the transactions that move them.
CREATE TABLE endpoint_tasks (
    endpoint_id BLOB NOT NULL PRIMARY KEY,
    waiting BIGINT NOT NULL,
    taken BIGINT NOT NULL,
    succeeded BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    -- results that came for tasks that had ended
    late BIGINT NOT NULL
);
INSERT INTO endpoint_tasks (endpoint_id, waiting, taken, succeeded, failed, late)
    SELECT endpoint_id,
        sum(CASE WHEN state = 0 THEN 1 ELSE 0 END), sum(CASE WHEN state = 1 THEN 1 ELSE 0 END),
        sum(CASE WHEN state = 2 THEN 1 ELSE 0 END), sum(CASE WHEN state = 3 THEN 1 ELSE 0 END), 0
    FROM tasks GROUP BY endpoint_id;

-- A large payload lies in a file: `payload` is absent then, and `payload_file` names it.
ALTER TABLE assignments ADD COLUMN payload_file BLOB;
ALTER TABLE assignments ADD COLUMN payload_bytes BIGINT;
CREATE INDEX assignments_files ON assignments (payload_file) WHERE payload_file IS NOT NULL;

-- So does a large result. What has expired has no row here.
CREATE TABLE kept_results (
    task_id BLOB NOT NULL PRIMARY KEY,
    -- the message as the endpoint published it, unless it lies in a file
    message BLOB,
    file BLOB,
    bytes BIGINT NOT NULL,
    ended_us BIGINT NOT NULL
);
INSERT INTO kept_results (task_id, message, bytes, ended_us)
    SELECT r.task_id, r.message, length(r.message), t.ended_us FROM results r JOIN tasks t ON t.id = r.task_id;
DROP TABLE results;
ALTER TABLE kept_results RENAME TO results;
CREATE INDEX results_by_end ON results (ended_us);
CREATE INDEX results_files ON results (file) WHERE file IS NOT NULL;

-- Submits whose answer may not have arrived, and those that came with a key of their own.
CREATE TABLE submissions (
    id BLOB NOT NULL PRIMARY KEY,
    identity_id BLOB NOT NULL,
    -- SHA-256 of identity, endpoint and body
    fingerprint BLOB NOT NULL,
    -- SHA-256 of the header Idempotency-Key; absent without one
    key_hash BLOB,
    group_id BLOB NOT NULL,
    endpoint_id BLOB NOT NULL,
    -- the tasks in the order of the body, 16 bytes each
    task_ids BLOB NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE INDEX submissions_by_fingerprint ON submissions (fingerprint);
CREATE INDEX submissions_by_key ON submissions (identity_id, key_hash) WHERE key_hash IS NOT NULL;
CREATE INDEX submissions_by_age ON submissions (created_us);

CREATE TABLE containers (
    id BLOB NOT NULL PRIMARY KEY,
    owner_id BLOB NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    location TEXT NOT NULL,
    description TEXT NOT NULL,
    created_us BIGINT NOT NULL
);
