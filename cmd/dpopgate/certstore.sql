-- Certificates, ACME accounts and locks, for tls.acme.storage: store. What exists is not changed.
BEGIN;

-- Two at once would trip over each other's half.
SELECT pg_advisory_xact_lock(hashtextextended('dpopgate migrate', 0));

-- CREATE SCHEMA IF NOT EXISTS asks for the right to create one even where it exists.
DO $migrate$
BEGIN
    IF to_regnamespace('dpopgate') IS NULL THEN
        CREATE SCHEMA dpopgate;
        COMMENT ON SCHEMA dpopgate IS 'What instances of dpopgate share.';
    END IF;
END
$migrate$;

CREATE TABLE IF NOT EXISTS dpopgate.certificates (
    key      text COLLATE "C" NOT NULL PRIMARY KEY,
    value    bytea            NOT NULL,
    sealed   boolean          NOT NULL,
    modified timestamptz      NOT NULL
);
COMMENT ON TABLE dpopgate.certificates IS 'Certificates with their private keys, and ACME accounts with theirs.';
COMMENT ON COLUMN dpopgate.certificates.sealed IS 'The value is encrypted with tls.acme.storage_key.';

CREATE TABLE IF NOT EXISTS dpopgate.locks (
    name   text COLLATE "C" NOT NULL PRIMARY KEY,
    holder text             NOT NULL,
    until  timestamptz      NOT NULL
);
COMMENT ON TABLE dpopgate.locks IS 'Who orders a certificate now, so that the others wait.';
COMMENT ON COLUMN dpopgate.locks.until IS 'From when on others may take the lock, by the clock of the database.';

-- Private keys are for nobody but the owner and whom the owner names.
REVOKE ALL ON dpopgate.certificates, dpopgate.locks FROM PUBLIC;

COMMIT;
