-- Ids are 16 bytes, times are microseconds of UTC. Text columns named *_json hold JSON.

CREATE TABLE identities (
    id BLOB NOT NULL PRIMARY KEY,
    username TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    created_us BIGINT NOT NULL
);

-- An identity that logs in with a secret instead of a person.
CREATE TABLE clients (
    identity_id BLOB NOT NULL PRIMARY KEY REFERENCES identities (id),
    secret_hash BLOB NOT NULL,
    created_us BIGINT NOT NULL
);

CREATE TABLE tokens (
    hash BLOB NOT NULL PRIMARY KEY,
    identity_id BLOB NOT NULL REFERENCES identities (id),
    client_id BLOB NOT NULL,
    scope TEXT NOT NULL,
    resource_server TEXT NOT NULL,
    issued_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL
);
CREATE INDEX tokens_by_end ON tokens (expires_us);

CREATE TABLE functions (
    id BLOB NOT NULL PRIMARY KEY,
    owner_id BLOB NOT NULL,
    name TEXT NOT NULL,
    code TEXT NOT NULL,
    description TEXT,
    public BOOLEAN NOT NULL,
    metadata_json TEXT NOT NULL,
    -- the interpreter that registered it, such as 3.11.7
    python TEXT,
    created_us BIGINT NOT NULL
);

CREATE TABLE endpoints (
    id BLOB NOT NULL PRIMARY KEY,
    owner_id BLOB NOT NULL,
    name TEXT NOT NULL,
    display_name TEXT,
    multi_user BOOLEAN NOT NULL,
    public BOOLEAN NOT NULL,
    -- absent: any function
    allowed_functions_json TEXT,
    admins_json TEXT NOT NULL,
    metadata_json TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    -- the number of the credential handed out last
    credential BIGINT NOT NULL,
    -- the run that reported last, the credential it first reported with, and when that was
    run TEXT,
    run_credential BIGINT,
    run_since_us BIGINT
);

-- Broker users: ep.<subject>.<number> and client.<subject>.<number>.
CREATE TABLE credentials (
    kind TEXT NOT NULL,
    subject_id BLOB NOT NULL,
    number BIGINT NOT NULL,
    secret_hash BLOB NOT NULL,
    created_us BIGINT NOT NULL,
    -- opens no connection afterwards; absent: does not end by time
    expires_us BIGINT,
    PRIMARY KEY (kind, subject_id, number)
);

CREATE TABLE task_groups (
    id BLOB NOT NULL PRIMARY KEY,
    owner_id BLOB NOT NULL,
    -- whether results are also delivered to the group's queue
    queue BOOLEAN NOT NULL,
    created_us BIGINT NOT NULL
);

CREATE TABLE tasks (
    id BLOB NOT NULL PRIMARY KEY,
    group_id BLOB NOT NULL,
    endpoint_id BLOB NOT NULL,
    function_id BLOB NOT NULL,
    -- see task.rs
    state SMALLINT NOT NULL,
    -- the state string that the endpoint reported last, while the task is open
    progress_json TEXT,
    submitted_us BIGINT NOT NULL,
    ended_us BIGINT
);
CREATE INDEX tasks_by_group ON tasks (group_id, id);

-- The outbox towards endpoints: one row per open task. `seq` grows in the order of commits.
CREATE TABLE assignments (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    task_id BLOB NOT NULL UNIQUE,
    endpoint_id BLOB NOT NULL,
    function_id BLOB NOT NULL,
    -- absent once the endpoint has acknowledged the task
    payload TEXT,
    resource_specification_json TEXT NOT NULL,
    result_serializers_json TEXT NOT NULL,
    -- the credential under which the endpoint acknowledged it
    credential BIGINT
);
CREATE INDEX assignments_waiting ON assignments (endpoint_id, seq) WHERE credential IS NULL;
CREATE INDEX assignments_taken ON assignments (endpoint_id, credential) WHERE credential IS NOT NULL;

CREATE TABLE results (
    task_id BLOB NOT NULL PRIMARY KEY,
    -- the message as the endpoint published it
    message BLOB NOT NULL
);

-- The outbox towards clients: one row per result that the group's consumer has not acknowledged.
CREATE TABLE deliveries (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    group_id BLOB NOT NULL,
    task_id BLOB NOT NULL
);
CREATE INDEX deliveries_by_group ON deliveries (group_id, seq);
