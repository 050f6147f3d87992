-- Counts how often all that the identity held was ended. Whoever shows its secret gets something for it only if the
-- number is still the one that was read with the secret.
ALTER TABLE identities ADD COLUMN generation BIGINT NOT NULL DEFAULT 0;
