-- How people sign in: browser sessions, codes on their way to a client, refresh tokens, and upstream's names for them.

-- One browser in which somebody signed in. It outlives its cookie as long as tokens point to it: policies ask it.
CREATE TABLE sessions (
    id BLOB NOT NULL PRIMARY KEY,
    -- of the cookie; absent once the person signed out
    cookie_hash BLOB UNIQUE,
    -- the identity as which the browser signed in last
    identity_id BLOB NOT NULL REFERENCES identities (id),
    created_us BIGINT NOT NULL,
    -- the cookie means nothing afterwards
    expires_us BIGINT NOT NULL
);
CREATE INDEX sessions_by_end ON sessions (expires_us);
CREATE INDEX sessions_by_identity ON sessions (identity_id);

-- When and how somebody showed to be an identity, the last time in each session.
CREATE TABLE authentications (
    session_id BLOB NOT NULL REFERENCES sessions (id),
    identity_id BLOB NOT NULL REFERENCES identities (id),
    -- password, or the name of an upstream after 'oidc:'
    method TEXT NOT NULL,
    -- whether a second factor was shown
    mfa BOOLEAN NOT NULL,
    at_us BIGINT NOT NULL,
    PRIMARY KEY (session_id, identity_id)
);
CREATE INDEX authentications_by_identity ON authentications (identity_id);

-- Browsers in which somebody signed in before: others' wrong guesses do not hold them up.
CREATE TABLE known_browsers (
    browser_hash BLOB NOT NULL,
    identity_id BLOB NOT NULL REFERENCES identities (id),
    seen_us BIGINT NOT NULL,
    PRIMARY KEY (browser_hash, identity_id)
);
CREATE INDEX known_browsers_by_time ON known_browsers (seen_us);
CREATE INDEX known_browsers_by_identity ON known_browsers (identity_id);

CREATE TABLE codes (
    hash BLOB NOT NULL PRIMARY KEY,
    client_id BLOB NOT NULL,
    identity_id BLOB NOT NULL REFERENCES identities (id),
    session_id BLOB NOT NULL REFERENCES sessions (id),
    -- what the tokens that come from it are known by
    grant_id BLOB NOT NULL,
    redirect_uri TEXT NOT NULL,
    -- S256
    challenge TEXT NOT NULL,
    scope TEXT NOT NULL,
    state TEXT,
    nonce TEXT,
    offline BOOLEAN NOT NULL,
    expires_us BIGINT NOT NULL,
    -- kept after its use, to notice a second one
    used_us BIGINT,
    replayed BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX codes_by_end ON codes (expires_us);
CREATE INDEX codes_by_identity ON codes (identity_id);

CREATE TABLE refresh_tokens (
    hash BLOB NOT NULL PRIMARY KEY,
    -- the row of tokens that follow one another, one per resource server and code
    chain_id BLOB NOT NULL,
    grant_id BLOB NOT NULL,
    session_id BLOB NOT NULL,
    identity_id BLOB NOT NULL REFERENCES identities (id),
    client_id BLOB NOT NULL,
    scope TEXT NOT NULL,
    resource_server TEXT NOT NULL,
    -- each token of a chain follows from the one before and this
    chain_key BLOB NOT NULL,
    issued_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL,
    -- kept after its use, to notice a second one
    used_us BIGINT,
    successor_hash BLOB
);
CREATE INDEX refresh_tokens_by_end ON refresh_tokens (expires_us);
CREATE INDEX refresh_tokens_by_grant ON refresh_tokens (grant_id);
CREATE INDEX refresh_tokens_by_chain ON refresh_tokens (chain_id);
CREATE INDEX refresh_tokens_by_identity ON refresh_tokens (identity_id);
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);

-- Whom an upstream means: its name for somebody, which never changes, and the identity here.
CREATE TABLE upstream_subjects (
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    identity_id BLOB NOT NULL UNIQUE REFERENCES identities (id),
    created_us BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);
