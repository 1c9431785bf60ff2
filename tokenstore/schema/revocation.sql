-- Announces changed and deleted tokens to the gateways, which forget at once what they remember of them. Each statement
-- that changes or deletes rows of the table sends notices when its transaction commits, also one that deletes users or
-- clients and takes their tokens along. To run this again changes nothing. It needs the right TRIGGER on the table,
-- which its owner has, and the right to create a function in its schema. To undo it:
--     DROP FUNCTION {{if .Schema}}{{.Schema}}.{{end}}dpopgate_announce_revocations() CASCADE;
BEGIN;

SELECT pg_advisory_xact_lock(hashtextextended('dpopgate migrate', 0));

-- A new trigger waits for those who write to the table, and everyone who wants to write to it waits for the trigger.
SET LOCAL lock_timeout = '5s';

DO ${{.Tag}}$
DECLARE
    tokens constant regclass := to_regclass({{.TableLiteral}});
    kind "char";
    home text;
    event text;
    rows text;
BEGIN

SELECT c.relkind, quote_ident(n.nspname) INTO kind, home
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = tokens;
IF tokens IS NULL THEN
    RAISE EXCEPTION 'there is no table %: dpopgate migrate creates it', {{.TableLiteral}};
ELSIF kind NOT IN ('r', 'p') THEN
    RAISE EXCEPTION '% is not a table: a view changes without a trigger of its own being fired', {{.TableLiteral}};
END IF;
PERFORM set_config('search_path', home, true);

CREATE OR REPLACE FUNCTION dpopgate_announce_revocations() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$function$
DECLARE
    -- The type name cuts it to the 63 bytes that a channel may have.
    channel constant text := ('dpopgate:' || TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME)::name::text;
    most    constant int := 2000; -- more digests than that are not worth naming
    each    constant int := 124;  -- of 64 characters, after a word: a notice may have 7,999
    word    constant text := CASE TG_OP WHEN 'DELETE' THEN 'deleted ' ELSE 'changed ' END;
    changed text[];
BEGIN
    -- A token that expired long ago is let through by nobody, so that purging is not announced. Ten minutes is more than
    -- the clocks of a gateway and its database may differ by.
    BEGIN
        IF TG_OP = 'DELETE' THEN
            changed := ARRAY(
                SELECT encode(digest, 'hex') FROM old_rows
                WHERE octet_length(digest) = 32 AND expires_at > now() - interval '10 minutes'
                LIMIT most + 1);
        ELSIF TG_OP = 'UPDATE' THEN
            -- Other columns, such as one for the time of the last use, do not matter. EXCEPT takes NULL for a value, and
            -- no time that grows with the square of the rows.
            changed := ARRAY(
                SELECT encode(digest, 'hex') FROM (
                    SELECT digest, jti, client_id, user_id, token_type, dpop_jkt, scopes, audience, metadata::text, expires_at
                    FROM old_rows WHERE octet_length(digest) = 32 AND expires_at > now() - interval '10 minutes'
                    EXCEPT
                    SELECT digest, jti, client_id, user_id, token_type, dpop_jkt, scopes, audience, metadata::text, expires_at
                    FROM new_rows) AS rows
                LIMIT most + 1);
        END IF;
    EXCEPTION WHEN undefined_column OR datatype_mismatch OR undefined_function THEN
        changed := NULL; -- the table has been altered: nobody's statement is to fail because of that
    END;
    IF changed IS NULL OR cardinality(changed) > most THEN
        PERFORM pg_notify(channel, 'all');
        RETURN NULL;
    END IF;
    FOR i IN 1 .. cardinality(changed) BY each LOOP
        PERFORM pg_notify(channel, word || array_to_string(changed[i : i + each - 1], ''));
    END LOOP;
    RETURN NULL;
END
$function$;
COMMENT ON FUNCTION dpopgate_announce_revocations() IS 'Tells dpopgate which tokens have been changed or deleted.';

-- Where a trigger is there and enabled, its table need not be locked.
FOR event, rows IN VALUES
    ('update', 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'),
    ('delete', 'REFERENCING OLD TABLE AS old_rows'),
    ('truncate', '')
LOOP
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = tokens AND tgname = 'dpopgate_revocation_' || event
            AND tgenabled IN ('O', 'A') AND tgfoid = 'dpopgate_announce_revocations()'::regprocedure) THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION dpopgate_announce_revocations()',
            'dpopgate_revocation_' || event, event, tokens, rows);
    END IF;
END LOOP;

END
${{.Tag}}$;

COMMIT;
