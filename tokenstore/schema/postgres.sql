-- The token table of dpopgate, for an empty database. Where the table exists, this changes nothing.
-- Everything is created in {{if .Schema}}the schema {{.Schema}}{{else}}the first schema of the search path{{end}}.
BEGIN;

-- Two at once would trip over each other's half.
SELECT pg_advisory_xact_lock(hashtextextended('dpopgate migrate', 0));

DO ${{.Tag}}$
BEGIN

IF to_regclass({{.TableLiteral}}) IS NOT NULL THEN
    RETURN;
END IF;
{{if .Schema}}
IF to_regnamespace({{.SchemaLiteral}}) IS NULL THEN
    CREATE SCHEMA {{.Schema}};
END IF;
SET LOCAL search_path TO {{.Schema}};
{{end}}
IF NOT EXISTS (SELECT FROM pg_type WHERE typname = 'token_type' AND typnamespace = to_regnamespace(quote_ident(current_schema()))) THEN
    CREATE TYPE token_type AS ENUM ('Bearer', 'DPoP');
END IF;

IF to_regprocedure('trigger_set_timestamp()') IS NULL THEN
    CREATE FUNCTION trigger_set_timestamp() RETURNS trigger
        LANGUAGE plpgsql AS
    $function$
    BEGIN
        NEW.updated_at := now();
        RETURN NEW;
    END
    $function$;
    COMMENT ON FUNCTION trigger_set_timestamp() IS 'Keeps updated_at.';
END IF;

-- A scope-token of RFC 6749 section 3.3: visible ASCII without the double quote and the backslash.
IF to_regprocedure('scopes_all_valid(text[])') IS NULL THEN
    CREATE FUNCTION scopes_all_valid(scopes text[]) RETURNS boolean
        LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    $function$
        SELECT coalesce(bool_and(scope IS NOT NULL AND scope ~ '^[\x21\x23-\x5B\x5D-\x7E]+$'), true)
        FROM unnest(scopes) AS scope
    $function$;
    COMMENT ON FUNCTION scopes_all_valid(text[]) IS 'Whether every element is a scope-token (RFC 6749 section 3.3).';
END IF;

-- A resource of RFC 8707 section 2: an absolute URI without a fragment.
IF to_regprocedure('are_valid_oauth_uris_or_null(text[])') IS NULL THEN
    CREATE FUNCTION are_valid_oauth_uris_or_null(uris text[]) RETURNS boolean
        LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    $function$
        SELECT coalesce(bool_and(uri IS NOT NULL AND uri ~ '^[A-Za-z][A-Za-z0-9+.-]*:[\x21\x22\x24-\x7E]+$'), true)
        FROM unnest(uris) AS uri
    $function$;
    COMMENT ON FUNCTION are_valid_oauth_uris_or_null(text[])
        IS 'Whether every element is an absolute URI without a fragment (RFC 8707 section 2), or there is no array.';
END IF;

-- The owners of tokens. An authorization server brings its own; these hold no more than the references need.
IF to_regclass('oauth_clients') IS NULL THEN
    CREATE TABLE oauth_clients (id uuid PRIMARY KEY DEFAULT gen_random_uuid());
    COMMENT ON TABLE oauth_clients IS 'Clients that tokens are issued to.';
END IF;
IF to_regclass('users') IS NULL THEN
    CREATE TABLE users (id uuid PRIMARY KEY DEFAULT gen_random_uuid());
    COMMENT ON TABLE users IS 'End-users on whose behalf tokens are issued.';
END IF;

CREATE TABLE {{.Table}} (
    digest     bytea       NOT NULL,
    jti        uuid        NOT NULL DEFAULT gen_random_uuid(),
    client_id  uuid        NOT NULL,
    user_id    uuid,
    token_type token_type  NOT NULL DEFAULT 'Bearer',
    dpop_jkt   text,
    scopes     text[]      NOT NULL DEFAULT '{}',
    audience   text[],
    metadata   jsonb       NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,

    CONSTRAINT {{.Name "" "_pkey"}} PRIMARY KEY (digest),
    CONSTRAINT {{.Name "" "_client_id_fkey"}} FOREIGN KEY (client_id) REFERENCES oauth_clients (id) ON DELETE CASCADE,
    CONSTRAINT {{.Name "" "_user_id_fkey"}} FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT access_token_dpop_consistency_chk CHECK (
        (token_type = 'Bearer' AND dpop_jkt IS NULL)
        OR (token_type = 'DPoP' AND dpop_jkt IS NOT NULL AND length(dpop_jkt) BETWEEN 43 AND 128)
    ),
    CONSTRAINT scopes_token_chars CHECK (scopes_all_valid(scopes)),
    CONSTRAINT audience_uris_valid CHECK (are_valid_oauth_uris_or_null(audience))
);

CREATE INDEX {{.Name "idx_" "_expires_at"}} ON {{.Table}} (expires_at);
CREATE INDEX {{.Name "idx_" "_user_client"}} ON {{.Table}} (user_id, client_id);

CREATE TRIGGER {{.Name "set_timestamp_" ""}} BEFORE UPDATE ON {{.Table}}
    FOR EACH ROW EXECUTE FUNCTION trigger_set_timestamp();

COMMENT ON TABLE {{.Table}} IS 'Access tokens (opaque, hashed at rest). May be Bearer or DPoP-bound.';
COMMENT ON COLUMN {{.Table}}.digest IS 'Hash of the token; its plaintext exists only when it is issued.';
COMMENT ON COLUMN {{.Table}}.jti IS 'Identifier of the token for logs and traces.';
COMMENT ON COLUMN {{.Table}}.client_id IS 'Client that owns the token.';
COMMENT ON COLUMN {{.Table}}.user_id IS 'End-user on whose behalf it was issued; NULL for client-only flows.';
COMMENT ON COLUMN {{.Table}}.token_type IS 'Bearer (no sender constraint) or DPoP (sender-constrained).';
COMMENT ON COLUMN {{.Table}}.dpop_jkt IS 'For DPoP: RFC 7638 thumbprint of the key that the token is bound to.';
COMMENT ON COLUMN {{.Table}}.scopes IS 'Scopes granted to the token.';
COMMENT ON COLUMN {{.Table}}.audience IS 'URIs that the token is good for; NULL for any.';
COMMENT ON COLUMN {{.Table}}.metadata IS 'Free-form JSON object: device, address, hints.';
COMMENT ON COLUMN {{.Table}}.created_at IS 'When the token was issued.';
COMMENT ON COLUMN {{.Table}}.updated_at IS 'When the row was last changed; kept by the trigger.';
COMMENT ON COLUMN {{.Table}}.expires_at IS 'From when on the token is no longer good.';
COMMENT ON INDEX {{.Name "idx_" "_expires_at"}} IS 'For purging and asking by expiry.';
COMMENT ON INDEX {{.Name "idx_" "_user_client"}} IS 'For tokens of a user or of a user''s client.';

END
${{.Tag}}$;

COMMIT;
