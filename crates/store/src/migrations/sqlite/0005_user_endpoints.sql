-- The manager that starts this endpoint; absent: it starts itself.
ALTER TABLE endpoints ADD COLUMN manager_id BLOB;
-- Where this endpoint was told to find the broker, such as amqps://compute.example.org:443.
ALTER TABLE endpoints ADD COLUMN broker_at TEXT;
CREATE INDEX endpoints_by_manager ON endpoints (manager_id) WHERE manager_id IS NOT NULL;
