-- Tasks of a large submit are written in steps. They lie here until it is accepted, and then until they are released.
CREATE TABLE staged_tasks (
    request_id BLOB NOT NULL,
    -- in the submit
    place BIGINT NOT NULL,
    task_id BLOB NOT NULL,
    function_id BLOB NOT NULL,
    payload TEXT,
    payload_file BLOB,
    payload_bytes BIGINT NOT NULL,
    PRIMARY KEY (request_id, place)
);
CREATE INDEX staged_files ON staged_tasks (payload_file) WHERE payload_file IS NOT NULL;

-- Submits that were accepted and not released yet.
CREATE TABLE staged_submits (
    request_id BLOB NOT NULL PRIMARY KEY,
    group_id BLOB NOT NULL,
    endpoint_id BLOB NOT NULL,
    resource_specification_json TEXT NOT NULL,
    result_serializers_json TEXT NOT NULL,
    submitted_us BIGINT NOT NULL
);
