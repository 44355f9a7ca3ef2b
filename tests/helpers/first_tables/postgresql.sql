CREATE TABLE keyauth_changes (
    id BIGSERIAL NOT NULL,
    key_id VARCHAR(12) NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE keyauth_events (
    id BIGSERIAL NOT NULL,
    key_id VARCHAR(12) NOT NULL,
    event VARCHAR(16) NOT NULL,
    actor VARCHAR(300) NOT NULL,
    address VARCHAR(255),
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    changes JSON NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX ix_keyauth_events_key ON keyauth_events (key_id, id);

CREATE TABLE keyauth_keys (
    id VARCHAR(12) NOT NULL,
    name VARCHAR(100) NOT NULL,
    owner_id VARCHAR(255) NOT NULL,
    environment VARCHAR(16) NOT NULL,
    scopes JSON NOT NULL,
    metadata JSON NOT NULL,
    hourly_limit INTEGER,
    allowed_origins JSON NOT NULL,
    allowed_ips JSON NOT NULL,
    enabled BOOLEAN NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    revoked_at TIMESTAMP WITH TIME ZONE,
    last_used_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (id)
);

CREATE INDEX ix_keyauth_keys_created ON keyauth_keys (created_at, id);

CREATE INDEX ix_keyauth_keys_owner ON keyauth_keys (owner_id, created_at, id);

CREATE TABLE keyauth_origins (
    origin VARCHAR(300) NOT NULL,
    key_id VARCHAR(12) NOT NULL,
    PRIMARY KEY (origin, key_id)
);

CREATE TABLE keyauth_secrets (
    id BIGSERIAL NOT NULL,
    key_id VARCHAR(12) NOT NULL,
    tag VARCHAR(8) NOT NULL,
    hash VARCHAR(255) NOT NULL,
    last4 VARCHAR(4) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    last_used_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (id)
);

CREATE INDEX ix_keyauth_secrets_key ON keyauth_secrets (key_id, tag);

CREATE TABLE keyauth_sessions (
    token_hash VARCHAR(64) NOT NULL,
    user_id VARCHAR(255) NOT NULL,
    scopes JSON NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    revoked_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (token_hash)
);

CREATE INDEX ix_keyauth_sessions_user_id ON keyauth_sessions (user_id);

CREATE TABLE keyauth_usage (
    key_id VARCHAR(12) NOT NULL,
    hour INTEGER NOT NULL,
    admitted BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    PRIMARY KEY (key_id, hour)
);
