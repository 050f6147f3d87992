-- Ids are 16 bytes, times are microseconds of UTC. Text columns named *_json hold JSON. Text is compared by its bytes.

-- The oldest migration that a program must know to use this database. A migration that takes away or changes what a program
-- before it uses sets it to its own number.
CREATE TABLE schema_compatibility (
    only_row BIGINT NOT NULL PRIMARY KEY CHECK (only_row = 1),
    oldest_known BIGINT NOT NULL
);
INSERT INTO schema_compatibility (only_row, oldest_known) VALUES (1, 1);

-- People and client identities, and what they may do.
CREATE TABLE identities (
    id BYTEA NOT NULL PRIMARY KEY,
    username TEXT COLLATE "C" NOT NULL UNIQUE,
    name TEXT COLLATE "C" NOT NULL,
    created_us BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL DEFAULT 'client',
    email TEXT COLLATE "C",
    organization TEXT COLLATE "C",
    disabled BOOLEAN NOT NULL DEFAULT FALSE,
    administrator BOOLEAN NOT NULL DEFAULT FALSE,
    -- the identity it is linked to; absent: it is the first of its set, or alone
    primary_id BYTEA REFERENCES identities (id),
    -- when somebody last authenticated as it
    authenticated_us BIGINT,
    -- how often all that it held was ended
    generation BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX identities_by_primary ON identities (primary_id);

-- An identity that logs in with a secret instead of a person.
CREATE TABLE clients (
    identity_id BYTEA NOT NULL PRIMARY KEY REFERENCES identities (id),
    secret_hash BYTEA NOT NULL,
    created_us BIGINT NOT NULL,
    -- what it checks tokens for, if it is a resource server
    resource_server TEXT COLLATE "C"
);

-- Access tokens.
CREATE TABLE tokens (
    hash BYTEA NOT NULL PRIMARY KEY,
    identity_id BYTEA NOT NULL REFERENCES identities (id),
    client_id BYTEA NOT NULL,
    scope TEXT COLLATE "C" NOT NULL,
    resource_server TEXT COLLATE "C" NOT NULL,
    issued_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL,
    -- the sign-in it goes back to, if a person made it
    session_id BYTEA,
    -- tokens that came from one code end together
    grant_id BYTEA,
    -- the token for which a resource server was given this one
    parent_hash BYTEA
);
CREATE INDEX tokens_by_end ON tokens (expires_us);
CREATE INDEX tokens_by_identity ON tokens (identity_id, issued_us);
CREATE INDEX tokens_by_client ON tokens (client_id);
CREATE INDEX tokens_by_grant ON tokens (grant_id) WHERE grant_id IS NOT NULL;
CREATE INDEX tokens_by_parent ON tokens (parent_hash) WHERE parent_hash IS NOT NULL;
CREATE INDEX tokens_by_session ON tokens (session_id) WHERE session_id IS NOT NULL;

CREATE TABLE functions (
    id BYTEA NOT NULL PRIMARY KEY,
    owner_id BYTEA NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C",
    public BOOLEAN NOT NULL,
    metadata_json TEXT COLLATE "C" NOT NULL,
    -- the interpreter that registered it, such as 3.11.7
    python TEXT COLLATE "C",
    created_us BIGINT NOT NULL,
    code_hash BYTEA,
    -- whose members may call it beside the owner
    group_id BYTEA
);
CREATE INDEX functions_by_code ON functions (code_hash);

CREATE TABLE endpoints (
    id BYTEA NOT NULL PRIMARY KEY,
    owner_id BYTEA NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    display_name TEXT COLLATE "C",
    multi_user BOOLEAN NOT NULL,
    public BOOLEAN NOT NULL,
    -- absent: any function
    allowed_functions_json TEXT COLLATE "C",
    created_us BIGINT NOT NULL,
    -- the number of the credential handed out last
    credential BIGINT NOT NULL,
    -- the run that reported last, the credential it first reported with, and when that was
    run TEXT COLLATE "C",
    run_credential BIGINT,
    run_since_us BIGINT,
    -- until when nobody may register it
    locked_until_us BIGINT,
    -- the manager that starts it; absent: it starts itself
    manager_id BYTEA,
    -- where it was told to find the broker, such as amqps://compute.example.org:443
    broker_at TEXT COLLATE "C",
    -- what a user endpoint was asked for with; its manager is told that again when it has to be started anew
    choices_json TEXT COLLATE "C",
    -- it starts user endpoints by a template, which is in its metadata, and runs no tasks
    is_manager BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX endpoints_by_owner ON endpoints (owner_id, name, id);
CREATE INDEX endpoints_by_manager ON endpoints (manager_id) WHERE manager_id IS NOT NULL;
CREATE INDEX endpoints_public ON endpoints (name, id) WHERE public;
CREATE INDEX endpoints_counted ON endpoints (owner_id, manager_id);

-- Broker users: ep.<subject>.<number> and client.<subject>.<number>.
CREATE TABLE credentials (
    kind TEXT COLLATE "C" NOT NULL,
    subject_id BYTEA NOT NULL,
    number BIGINT NOT NULL,
    secret_hash BYTEA NOT NULL,
    created_us BIGINT NOT NULL,
    -- opens no connection afterwards; absent: does not end by time
    expires_us BIGINT,
    -- the application that was handed an endpoint's credential for its owner; it ends with either
    client_id BYTEA,
    PRIMARY KEY (kind, subject_id, number)
);
CREATE INDEX credentials_by_client ON credentials (client_id) WHERE client_id IS NOT NULL;

CREATE TABLE task_groups (
    id BYTEA NOT NULL PRIMARY KEY,
    owner_id BYTEA NOT NULL,
    -- whether results are also delivered to the group's queue
    queue BOOLEAN NOT NULL,
    created_us BIGINT NOT NULL
);

CREATE TABLE tasks (
    id BYTEA NOT NULL PRIMARY KEY,
    group_id BYTEA NOT NULL,
    endpoint_id BYTEA NOT NULL,
    function_id BYTEA NOT NULL,
    -- see task_rows.rs
    state BIGINT NOT NULL,
    -- the state string that the endpoint reported last, while the task is open
    progress_json TEXT COLLATE "C",
    submitted_us BIGINT NOT NULL,
    ended_us BIGINT
);
CREATE INDEX tasks_by_group ON tasks (group_id, id);

-- The outbox towards endpoints: one row per open task. `seq` grows in the order of commits of one endpoint.
CREATE TABLE assignments (
    seq BIGINT NOT NULL GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    task_id BYTEA NOT NULL UNIQUE,
    endpoint_id BYTEA NOT NULL,
    function_id BYTEA NOT NULL,
    -- absent once the endpoint has acknowledged the task
    payload TEXT COLLATE "C",
    resource_specification_json TEXT COLLATE "C" NOT NULL,
    result_serializers_json TEXT COLLATE "C" NOT NULL,
    -- the credential under which the endpoint acknowledged it
    credential BIGINT,
    -- a large payload lies in a file: `payload` is absent then
    payload_file BYTEA,
    payload_bytes BIGINT
);
CREATE INDEX assignments_waiting ON assignments (endpoint_id, seq) WHERE credential IS NULL;
CREATE INDEX assignments_taken ON assignments (endpoint_id, credential) WHERE credential IS NOT NULL;
CREATE INDEX assignments_files ON assignments (payload_file) WHERE payload_file IS NOT NULL;

-- The outbox towards clients: one row per result that the group's consumer has not acknowledged. `seq` grows in the order of commits of one group.
CREATE TABLE deliveries (
    seq BIGINT NOT NULL GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    group_id BYTEA NOT NULL,
    task_id BYTEA NOT NULL
);
CREATE INDEX deliveries_by_group ON deliveries (group_id, seq);
CREATE INDEX deliveries_by_task ON deliveries (task_id);

-- A person without a row here cannot log in with a password.
CREATE TABLE passwords (
    identity_id BYTEA NOT NULL PRIMARY KEY REFERENCES identities (id),
    -- argon2id, as a PHC string
    hash TEXT COLLATE "C" NOT NULL,
    changed_us BIGINT NOT NULL
);

-- Applications that keep no secret: people log in through them.
CREATE TABLE native_apps (
    id BYTEA NOT NULL PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    -- beside our own page that shows the code
    redirect_uris_json TEXT COLLATE "C" NOT NULL,
    disabled BOOLEAN NOT NULL DEFAULT FALSE,
    created_us BIGINT NOT NULL
);
-- The one that is built into the SDK and the endpoint.
INSERT INTO native_apps (id, name, redirect_uris_json, created_us)
VALUES ('\x4cf29807cf2149ec9443ff9a3fb9f81c', 'Globus Compute SDK', '[]', 0);

CREATE TABLE user_groups (
    id BYTEA NOT NULL PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    description TEXT COLLATE "C",
    created_us BIGINT NOT NULL
);

CREATE TABLE group_members (
    group_id BYTEA NOT NULL REFERENCES user_groups (id),
    identity_id BYTEA NOT NULL REFERENCES identities (id),
    PRIMARY KEY (group_id, identity_id)
);
CREATE INDEX group_members_by_identity ON group_members (identity_id);

CREATE TABLE projects (
    id BYTEA NOT NULL PRIMARY KEY,
    display_name TEXT COLLATE "C" NOT NULL,
    contact_email TEXT COLLATE "C" NOT NULL,
    created_us BIGINT NOT NULL
);

CREATE TABLE project_admins (
    project_id BYTEA NOT NULL REFERENCES projects (id),
    -- identity or group
    kind TEXT COLLATE "C" NOT NULL,
    subject_id BYTEA NOT NULL,
    PRIMARY KEY (project_id, kind, subject_id)
);
CREATE INDEX project_admins_by_subject ON project_admins (kind, subject_id);

CREATE TABLE policies (
    id BYTEA NOT NULL PRIMARY KEY,
    project_id BYTEA NOT NULL REFERENCES projects (id),
    display_name TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    high_assurance BOOLEAN NOT NULL,
    required_mfa BOOLEAN NOT NULL,
    -- seconds; absent: a session does not age
    authentication_assurance_timeout BIGINT,
    -- lists of domains; absent: any, or none
    domain_constraints_include_json TEXT COLLATE "C",
    domain_constraints_exclude_json TEXT COLLATE "C",
    created_us BIGINT NOT NULL
);
CREATE INDEX policies_by_project ON policies (project_id);

-- One browser in which somebody signed in. It outlives its cookie as long as tokens point to it: policies ask it.
CREATE TABLE sessions (
    id BYTEA NOT NULL PRIMARY KEY,
    -- of the cookie; absent once the person signed out
    cookie_hash BYTEA UNIQUE,
    -- the identity as which the browser signed in last
    identity_id BYTEA NOT NULL REFERENCES identities (id),
    created_us BIGINT NOT NULL,
    -- the cookie means nothing afterwards
    expires_us BIGINT NOT NULL
);
CREATE INDEX sessions_by_end ON sessions (expires_us);
CREATE INDEX sessions_by_identity ON sessions (identity_id);

-- When and how somebody authenticated as an identity, the last time in each session.
CREATE TABLE authentications (
    session_id BYTEA NOT NULL REFERENCES sessions (id),
    identity_id BYTEA NOT NULL REFERENCES identities (id),
    -- password, or the name of an upstream after 'oidc:'
    method TEXT COLLATE "C" NOT NULL,
    -- whether a second factor was shown
    mfa BOOLEAN NOT NULL,
    at_us BIGINT NOT NULL,
    PRIMARY KEY (session_id, identity_id)
);
CREATE INDEX authentications_by_identity ON authentications (identity_id);

-- Browsers in which somebody signed in before: others' wrong guesses do not hold them up.
CREATE TABLE known_browsers (
    browser_hash BYTEA NOT NULL,
    identity_id BYTEA NOT NULL REFERENCES identities (id),
    seen_us BIGINT NOT NULL,
    PRIMARY KEY (browser_hash, identity_id)
);
CREATE INDEX known_browsers_by_time ON known_browsers (seen_us);
CREATE INDEX known_browsers_by_identity ON known_browsers (identity_id);

-- Authorization codes.
CREATE TABLE codes (
    hash BYTEA NOT NULL PRIMARY KEY,
    client_id BYTEA NOT NULL,
    identity_id BYTEA NOT NULL REFERENCES identities (id),
    session_id BYTEA NOT NULL REFERENCES sessions (id),
    -- what the tokens that come from it are known by
    grant_id BYTEA NOT NULL,
    redirect_uri TEXT COLLATE "C" NOT NULL,
    -- S256
    challenge TEXT COLLATE "C" NOT NULL,
    scope TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C",
    nonce TEXT COLLATE "C",
    offline BOOLEAN NOT NULL,
    expires_us BIGINT NOT NULL,
    -- kept after its use, to notice a second one
    used_us BIGINT,
    replayed BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX codes_by_end ON codes (expires_us);
CREATE INDEX codes_by_identity ON codes (identity_id);
CREATE INDEX codes_by_client ON codes (client_id);

CREATE TABLE refresh_tokens (
    hash BYTEA NOT NULL PRIMARY KEY,
    -- the row of tokens that follow one another, one per resource server and code
    chain_id BYTEA NOT NULL,
    grant_id BYTEA NOT NULL,
    session_id BYTEA NOT NULL,
    identity_id BYTEA NOT NULL REFERENCES identities (id),
    client_id BYTEA NOT NULL,
    scope TEXT COLLATE "C" NOT NULL,
    resource_server TEXT COLLATE "C" NOT NULL,
    -- each token of a chain follows from the one before and this
    chain_key BYTEA NOT NULL,
    issued_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL,
    -- kept after its use, to notice a second one
    used_us BIGINT,
    successor_hash BYTEA
);
CREATE INDEX refresh_tokens_by_end ON refresh_tokens (expires_us);
CREATE INDEX refresh_tokens_by_grant ON refresh_tokens (grant_id);
CREATE INDEX refresh_tokens_by_chain ON refresh_tokens (chain_id);
CREATE INDEX refresh_tokens_by_identity ON refresh_tokens (identity_id);
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_by_client ON refresh_tokens (client_id);

-- An upstream's name for somebody, which never changes, and the identity here.
CREATE TABLE upstream_subjects (
    issuer TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    identity_id BYTEA NOT NULL UNIQUE REFERENCES identities (id),
    created_us BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);

-- Code is stored once, by its SHA-256.
CREATE TABLE function_code (
    hash BYTEA NOT NULL PRIMARY KEY,
    code TEXT COLLATE "C" NOT NULL
);

-- How many tasks of each endpoint are in which state; kept in the transactions that move them.
CREATE TABLE endpoint_tasks (
    endpoint_id BYTEA NOT NULL PRIMARY KEY,
    waiting BIGINT NOT NULL,
    taken BIGINT NOT NULL,
    succeeded BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    -- results that came for tasks that had ended
    late BIGINT NOT NULL
);

-- Results that have not expired.
CREATE TABLE results (
    task_id BYTEA NOT NULL PRIMARY KEY,
    -- the message as the endpoint published it, unless it lies in a file
    message BYTEA,
    file BYTEA,
    bytes BIGINT NOT NULL,
    ended_us BIGINT NOT NULL
);
CREATE INDEX results_by_end ON results (ended_us);
CREATE INDEX results_files ON results (file) WHERE file IS NOT NULL;

-- Submits whose answer may not have arrived, and those that came with a key of their own.
CREATE TABLE submissions (
    id BYTEA NOT NULL PRIMARY KEY,
    identity_id BYTEA NOT NULL,
    -- SHA-256 of identity, endpoint and body
    fingerprint BYTEA NOT NULL,
    -- SHA-256 of the header Idempotency-Key; absent without one
    key_hash BYTEA,
    group_id BYTEA NOT NULL,
    endpoint_id BYTEA NOT NULL,
    -- the tasks in the order of the body, 16 bytes each
    task_ids BYTEA NOT NULL,
    created_us BIGINT NOT NULL,
    -- the service process that is writing the answer; absent: none
    answered_by BIGINT
);
CREATE INDEX submissions_unanswered ON submissions (fingerprint, created_us) WHERE key_hash IS NULL;
CREATE UNIQUE INDEX submissions_by_key ON submissions (identity_id, key_hash) WHERE key_hash IS NOT NULL;
CREATE INDEX submissions_unanswered_by_age ON submissions (created_us) WHERE key_hash IS NULL;
CREATE INDEX submissions_keyed_by_age ON submissions (created_us) WHERE key_hash IS NOT NULL;

CREATE TABLE containers (
    id BYTEA NOT NULL PRIMARY KEY,
    owner_id BYTEA NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    location TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    created_us BIGINT NOT NULL
);

-- What stays of endpoints that were deleted: their ids are their owners' for good.
CREATE TABLE retired_endpoints (
    id BYTEA NOT NULL PRIMARY KEY,
    owner_id BYTEA NOT NULL,
    -- the number of the credential handed out last: those of a next life go on from there
    credential BIGINT NOT NULL,
    -- a lock outlives the endpoint
    locked_until_us BIGINT
);

-- Secrets that ended because an account was disabled or removed: whoever still has one is told why it opens nothing.
CREATE TABLE ended_secrets (
    hash BYTEA NOT NULL PRIMARY KEY,
    -- who was disabled, disabled or removed
    identity_id BYTEA NOT NULL,
    -- when this is forgotten
    until_us BIGINT NOT NULL
);
CREATE INDEX ended_secrets_by_end ON ended_secrets (until_us);

-- What an endpoint says of itself, up to 1 MiB: apart from what is read for lists, submits and heartbeats.
CREATE TABLE endpoint_metadata (
    endpoint_id BYTEA NOT NULL PRIMARY KEY REFERENCES endpoints (id) ON DELETE CASCADE,
    metadata_json TEXT COLLATE "C" NOT NULL
);

CREATE TABLE endpoint_admins (
    identity_id BYTEA NOT NULL,
    endpoint_id BYTEA NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    PRIMARY KEY (identity_id, endpoint_id)
);
CREATE INDEX endpoint_admins_by_endpoint ON endpoint_admins (endpoint_id);

-- Tasks of a large submit are written in steps. They lie here until it is accepted, and then until they are released.
CREATE TABLE staged_tasks (
    request_id BYTEA NOT NULL,
    -- in the submit
    place BIGINT NOT NULL,
    task_id BYTEA NOT NULL,
    function_id BYTEA NOT NULL,
    payload TEXT COLLATE "C",
    payload_file BYTEA,
    payload_bytes BIGINT NOT NULL,
    PRIMARY KEY (request_id, place)
);
CREATE INDEX staged_files ON staged_tasks (payload_file) WHERE payload_file IS NOT NULL;

-- Submits that were accepted and not released yet.
CREATE TABLE staged_submits (
    request_id BYTEA NOT NULL PRIMARY KEY,
    group_id BYTEA NOT NULL,
    endpoint_id BYTEA NOT NULL,
    resource_specification_json TEXT COLLATE "C" NOT NULL,
    result_serializers_json TEXT COLLATE "C" NOT NULL,
    submitted_us BIGINT NOT NULL
);

-- What each writer committed last: after a commit whose answer was lost, it looks here. (The name of a table that belongs to
-- this database, and is not copied, begins with an underscore.)
CREATE TABLE _commit_marks (
    writer TEXT NOT NULL PRIMARY KEY,
    mark TEXT NOT NULL
);
