-- People beside client identities, what they may do, and the applications that act for them.

-- Every identity made so far is a client's.
ALTER TABLE identities ADD COLUMN kind TEXT NOT NULL DEFAULT 'client';
ALTER TABLE identities ADD COLUMN email TEXT;
ALTER TABLE identities ADD COLUMN organization TEXT;
ALTER TABLE identities ADD COLUMN disabled BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE identities ADD COLUMN administrator BOOLEAN NOT NULL DEFAULT FALSE;
-- The identity it is linked to; absent: it is the first of its set, or alone.
ALTER TABLE identities ADD COLUMN primary_id BLOB REFERENCES identities (id);
-- When somebody last showed to be it.
ALTER TABLE identities ADD COLUMN authenticated_us BIGINT;
CREATE INDEX identities_by_primary ON identities (primary_id);

-- What a client checks tokens for, if it is a resource server.
ALTER TABLE clients ADD COLUMN resource_server TEXT;

-- A person without a row here cannot log in with a password.
CREATE TABLE passwords (
    identity_id BLOB NOT NULL PRIMARY KEY REFERENCES identities (id),
    -- argon2id, as a PHC string
    hash TEXT NOT NULL,
    changed_us BIGINT NOT NULL
);

-- Applications that keep no secret: people log in through them.
CREATE TABLE native_apps (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    -- beside our own page that shows the code
    redirect_uris_json TEXT NOT NULL,
    disabled BOOLEAN NOT NULL DEFAULT FALSE,
    created_us BIGINT NOT NULL
);
-- The one that is built into the SDK and the endpoint.
INSERT INTO native_apps (id, name, redirect_uris_json, created_us)
VALUES (X'4cf29807cf2149ec9443ff9a3fb9f81c', 'Globus Compute SDK', '[]', 0);

CREATE TABLE user_groups (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT,
    created_us BIGINT NOT NULL
);
CREATE TABLE group_members (
    group_id BLOB NOT NULL REFERENCES user_groups (id),
    identity_id BLOB NOT NULL REFERENCES identities (id),
    PRIMARY KEY (group_id, identity_id)
);
CREATE INDEX group_members_by_identity ON group_members (identity_id);

-- The sign-in a token goes back to, if a person made it.
ALTER TABLE tokens ADD COLUMN session_id BLOB;
-- Tokens that came from one code end together.
ALTER TABLE tokens ADD COLUMN grant_id BLOB;
-- The token for which a resource server was given this one.
ALTER TABLE tokens ADD COLUMN parent_hash BLOB;
CREATE INDEX tokens_by_identity ON tokens (identity_id, issued_us);
CREATE INDEX tokens_by_client ON tokens (client_id);
CREATE INDEX tokens_by_grant ON tokens (grant_id) WHERE grant_id IS NOT NULL;
CREATE INDEX tokens_by_parent ON tokens (parent_hash) WHERE parent_hash IS NOT NULL;
CREATE INDEX tokens_by_session ON tokens (session_id) WHERE session_id IS NOT NULL;

CREATE TABLE projects (
    id BLOB NOT NULL PRIMARY KEY,
    display_name TEXT NOT NULL,
    contact_email TEXT NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE TABLE project_admins (
    project_id BLOB NOT NULL REFERENCES projects (id),
    -- identity or group
    kind TEXT NOT NULL,
    subject_id BLOB NOT NULL,
    PRIMARY KEY (project_id, kind, subject_id)
);
CREATE INDEX project_admins_by_subject ON project_admins (kind, subject_id);

CREATE TABLE policies (
    id BLOB NOT NULL PRIMARY KEY,
    project_id BLOB NOT NULL REFERENCES projects (id),
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    high_assurance BOOLEAN NOT NULL,
    required_mfa BOOLEAN NOT NULL,
    -- seconds; absent: a session does not age
    authentication_assurance_timeout BIGINT,
    -- lists of domains; absent: any, or none
    domain_constraints_include_json TEXT,
    domain_constraints_exclude_json TEXT,
    created_us BIGINT NOT NULL
);
CREATE INDEX policies_by_project ON policies (project_id);
