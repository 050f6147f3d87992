-- What stays of endpoints that were deleted: their ids are their owners' for good.
CREATE TABLE retired_endpoints (
    id BLOB NOT NULL PRIMARY KEY,
    owner_id BLOB NOT NULL,
    -- the number of the credential handed out last: those of a next life go on from there
    credential BIGINT NOT NULL,
    -- a lock outlives the endpoint
    locked_until_us BIGINT
);
-- Those deleted so far, as far as tasks tell: only its owner sends tasks to an endpoint.
INSERT INTO retired_endpoints (id, owner_id, credential)
    SELECT t.endpoint_id, min(g.owner_id), 0 FROM tasks t JOIN task_groups g ON g.id = t.group_id
    WHERE t.endpoint_id NOT IN (SELECT id FROM endpoints) GROUP BY t.endpoint_id;

-- The application that was handed an endpoint's credential for its owner; it ends with either.
ALTER TABLE credentials ADD COLUMN client_id BLOB;
CREATE INDEX credentials_by_client ON credentials (client_id) WHERE client_id IS NOT NULL;

-- Secrets that ended because somebody was shut out: who still has one is told why it opens nothing.
CREATE TABLE ended_secrets (
    hash BLOB NOT NULL PRIMARY KEY,
    -- who was shut out, disabled or removed
    identity_id BLOB NOT NULL,
    -- when this is forgotten
    until_us BIGINT NOT NULL
);
CREATE INDEX ended_secrets_by_end ON ended_secrets (until_us);
-- What an application holds ends with it.
CREATE INDEX refresh_tokens_by_client ON refresh_tokens (client_id);
CREATE INDEX codes_by_client ON codes (client_id);
