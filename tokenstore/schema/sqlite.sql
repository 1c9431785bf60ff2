-- The token table of dpopgate in an embedded database: the columns and checks of the Postgres one.
-- UUIDs are text in lower case, arrays and metadata are JSON, and times are UTC as 2025-01-31T12:34:56.789Z, which
-- sorts as text and which SQLite's own date functions read. Clients and users have no tables here.

CREATE TABLE IF NOT EXISTS oauth_access_tokens (
    digest     BLOB NOT NULL PRIMARY KEY,
    jti        TEXT NOT NULL,
    client_id  TEXT NOT NULL,
    user_id    TEXT,
    token_type TEXT NOT NULL DEFAULT 'Bearer',
    dpop_jkt   TEXT,
    scopes     TEXT NOT NULL DEFAULT '[]',
    audience   TEXT,
    metadata   TEXT NOT NULL DEFAULT '{}',
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    expires_at TEXT NOT NULL,

    CONSTRAINT digest_length CHECK (length(digest) = 32),
    CONSTRAINT ids_are_uuids CHECK (
        jti LIKE '________-____-____-____-____________' AND jti NOT GLOB '*[^0-9a-f-]*'
        AND client_id LIKE '________-____-____-____-____________' AND client_id NOT GLOB '*[^0-9a-f-]*'
        AND (user_id IS NULL
            OR user_id LIKE '________-____-____-____-____________' AND user_id NOT GLOB '*[^0-9a-f-]*')
    ),
    CONSTRAINT token_type_known CHECK (token_type IN ('Bearer', 'DPoP')),
    CONSTRAINT access_token_dpop_consistency_chk CHECK (
        (token_type = 'Bearer' AND dpop_jkt IS NULL)
        OR (token_type = 'DPoP' AND dpop_jkt IS NOT NULL AND length(dpop_jkt) BETWEEN 43 AND 128)
    ),
    CONSTRAINT scopes_is_array CHECK (json_valid(scopes) AND json_type(scopes) = 'array'),
    CONSTRAINT audience_is_array CHECK (audience IS NULL OR json_valid(audience) AND json_type(audience) = 'array'),
    CONSTRAINT metadata_is_object CHECK (json_valid(metadata) AND json_type(metadata) = 'object'),
    CONSTRAINT times_are_utc CHECK (
        coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', created_at) = created_at, false)
        AND coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', updated_at) = updated_at, false)
        AND coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', expires_at) = expires_at, false)
    )
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS idx_oauth_access_tokens_expires_at ON oauth_access_tokens (expires_at);
CREATE INDEX IF NOT EXISTS idx_oauth_access_tokens_user_client ON oauth_access_tokens (user_id, client_id);

CREATE TRIGGER IF NOT EXISTS set_timestamp_oauth_access_tokens AFTER UPDATE ON oauth_access_tokens
FOR EACH ROW BEGIN
    UPDATE oauth_access_tokens SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE digest = NEW.digest;
END;

-- A CHECK cannot look into an array, so these do. A scope-token of RFC 6749 section 3.3 is visible ASCII without the
-- double quote and the backslash.
CREATE TRIGGER IF NOT EXISTS scopes_token_chars_insert BEFORE INSERT ON oauth_access_tokens
WHEN EXISTS (SELECT 1 FROM json_each(NEW.scopes) WHERE type <> 'text' OR value = ''
    OR value GLOB '*[^!-~]*' OR instr(value, '"') OR instr(value, '\'))
BEGIN SELECT RAISE(ABORT, 'scopes_token_chars: a scope is not a scope-token (RFC 6749 section 3.3)'); END;

CREATE TRIGGER IF NOT EXISTS scopes_token_chars_update BEFORE UPDATE OF scopes ON oauth_access_tokens
WHEN EXISTS (SELECT 1 FROM json_each(NEW.scopes) WHERE type <> 'text' OR value = ''
    OR value GLOB '*[^!-~]*' OR instr(value, '"') OR instr(value, '\'))
BEGIN SELECT RAISE(ABORT, 'scopes_token_chars: a scope is not a scope-token (RFC 6749 section 3.3)'); END;

-- A resource of RFC 8707 section 2 is an absolute URI without a fragment.
CREATE TRIGGER IF NOT EXISTS audience_uris_valid_insert BEFORE INSERT ON oauth_access_tokens
WHEN EXISTS (SELECT 1 FROM json_each(NEW.audience) WHERE type <> 'text' OR value NOT GLOB '[A-Za-z]*:?*'
    OR value GLOB '*[^!-~]*' OR instr(value, '#') OR substr(value, 1, instr(value, ':') - 1) GLOB '*[^A-Za-z0-9+.-]*')
BEGIN SELECT RAISE(ABORT, 'audience_uris_valid: an audience is not an absolute URI (RFC 8707 section 2)'); END;

CREATE TRIGGER IF NOT EXISTS audience_uris_valid_update BEFORE UPDATE OF audience ON oauth_access_tokens
WHEN EXISTS (SELECT 1 FROM json_each(NEW.audience) WHERE type <> 'text' OR value NOT GLOB '[A-Za-z]*:?*'
    OR value GLOB '*[^!-~]*' OR instr(value, '#') OR substr(value, 1, instr(value, ':') - 1) GLOB '*[^A-Za-z0-9+.-]*')
BEGIN SELECT RAISE(ABORT, 'audience_uris_valid: an audience is not an absolute URI (RFC 8707 section 2)'); END;
