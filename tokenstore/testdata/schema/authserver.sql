-- The documented table as an authorization server's own migrations have built it over the years: clients and users
-- with lives of their own, columns in another order, text columns with limits, checks and triggers under its own
-- names, rows that were there before us. dpopgate is a guest here.

CREATE TYPE token_type AS ENUM ('Bearer', 'DPoP', 'MAC');

CREATE TABLE users (
    id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email    text NOT NULL UNIQUE,
    password text NOT NULL
);

CREATE TABLE oauth_clients (
    id     uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name   text NOT NULL,
    secret bytea NOT NULL
);

CREATE FUNCTION trigger_set_timestamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at = clock_timestamp();
    RETURN NEW;
END $$;

CREATE FUNCTION scopes_all_valid(list text[]) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    one text;
BEGIN
    FOREACH one IN ARRAY coalesce(list, '{}') LOOP
        IF one IS NULL OR one !~ '^[!#-\[\]-~]+$' THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END $$;

CREATE FUNCTION are_valid_oauth_uris_or_null(list text[]) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    one text;
BEGIN
    FOREACH one IN ARRAY coalesce(list, '{}') LOOP
        IF one IS NULL OR one !~ '^[a-z]+:' OR one ~ '#' THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END $$;

CREATE TABLE oauth_access_tokens (
    jti         uuid                     NOT NULL DEFAULT gen_random_uuid(),
    digest      bytea                    CONSTRAINT tokens_pk PRIMARY KEY,
    client_id   uuid                     NOT NULL,
    user_id     uuid,
    metadata    jsonb                    NOT NULL DEFAULT '{}',
    scopes      varchar(200)[]           NOT NULL DEFAULT '{}',
    audience    text[],
    token_type  token_type               NOT NULL DEFAULT 'Bearer',
    dpop_jkt    varchar(128),
    session_id  uuid, -- of no interest to a gateway
    expires_at  timestamp with time zone NOT NULL,
    created_at  timestamp with time zone NOT NULL DEFAULT now(),
    updated_at  timestamp with time zone NOT NULL DEFAULT now(),
    CONSTRAINT tokens_client FOREIGN KEY (client_id) REFERENCES oauth_clients (id) ON DELETE CASCADE,
    CONSTRAINT tokens_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT bound_or_not CHECK ((token_type = 'Bearer') = (dpop_jkt IS NULL)
        AND coalesce(length(dpop_jkt), 43) BETWEEN 43 AND 128),
    CONSTRAINT scopes_ok CHECK (scopes_all_valid(scopes)),
    CONSTRAINT audience_ok CHECK (are_valid_oauth_uris_or_null(audience))
);

CREATE INDEX tokens_by_expiry ON oauth_access_tokens (expires_at, jti);
CREATE INDEX tokens_by_owner ON oauth_access_tokens (user_id, client_id);
CREATE UNIQUE INDEX tokens_by_jti ON oauth_access_tokens (jti);

CREATE TRIGGER touch BEFORE UPDATE ON oauth_access_tokens FOR EACH ROW EXECUTE FUNCTION trigger_set_timestamp();

INSERT INTO users (id, email, password) VALUES ('00000000-0000-4000-8000-00000000a11c', 'alice@example.com', 'x');
INSERT INTO oauth_clients (id, name, secret) VALUES ('00000000-0000-4000-8000-0000000c11e7', 'Orders app', '\x00');
