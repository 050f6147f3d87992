-- What one identity may hold is bounded, and what it costs to look at does not grow with what others hold.

-- What an endpoint says of itself, up to 1 MiB: apart from what is read for lists, submits and heartbeats.
CREATE TABLE endpoint_metadata (
    endpoint_id BLOB NOT NULL PRIMARY KEY REFERENCES endpoints (id) ON DELETE CASCADE,
    metadata_json TEXT NOT NULL
);
INSERT INTO endpoint_metadata (endpoint_id, metadata_json) SELECT id, metadata_json FROM endpoints;
-- It starts user endpoints by a template, which is in its metadata, and runs no tasks.
ALTER TABLE endpoints ADD COLUMN is_manager BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE endpoints SET is_manager = TRUE WHERE json_type(metadata_json, '$.user_config_template') = 'text';
ALTER TABLE endpoints DROP COLUMN metadata_json;

CREATE TABLE endpoint_admins (
    identity_id BLOB NOT NULL,
    endpoint_id BLOB NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    PRIMARY KEY (identity_id, endpoint_id)
);
CREATE INDEX endpoint_admins_by_endpoint ON endpoint_admins (endpoint_id);
INSERT OR IGNORE INTO endpoint_admins (identity_id, endpoint_id)
    SELECT unhex(replace(a.value, '-', '')), e.id FROM endpoints e, json_each(e.admins_json) a;
ALTER TABLE endpoints DROP COLUMN admins_json;

-- Lists go along these; the number of an identity's endpoints is counted in the last.
DROP INDEX endpoints_by_owner;
CREATE INDEX endpoints_by_owner ON endpoints (owner_id, name, id);
CREATE INDEX endpoints_public ON endpoints (name, id) WHERE public;
CREATE INDEX endpoints_counted ON endpoints (owner_id, manager_id);
