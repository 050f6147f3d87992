-- What a user endpoint was asked for with; its manager is told that again when it has to be started anew. Absent: it is
-- no user endpoint, or was made before this migration.
ALTER TABLE endpoints ADD COLUMN choices_json TEXT;
