package tokenstore_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// changes is a database in which one change after the other is made to a guest's table, each to a fresh one.
type changes struct{ dsn, ddl, role string }

func newChanges(t *testing.T) *changes {
	ddl, err := os.ReadFile("testdata/schema/authserver.sql")
	require.NoError(t, err)
	dsn := tokenstoretest.Postgres(t)
	return &changes{dsn: dsn, ddl: string(ddl), role: tokenstoretest.Role(t, dsn)}
}

// found is what Check says after a change, by object: whether it is fatal.
func (c *changes) found(t *testing.T, change ...string) map[string]bool {
	tokenstoretest.Exec(t, c.dsn, "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC;"+c.ddl)
	tokenstoretest.Exec(t, c.dsn, change...)
	return checked(t, openPostgres(t, c.role, tokenstore.PostgresOptions{}))
}

func checked(t *testing.T, store tokenstore.Store) map[string]bool {
	differences, err := store.Check(t.Context())
	require.NoError(t, err)
	byObject := map[string]bool{}
	for _, d := range differences {
		assert.NotContains(t, byObject, d.Object, "named twice")
		assert.NotEmpty(t, d.Found)
		assert.NotEmpty(t, d.Want)
		byObject[d.Object] = d.Fatal
	}
	return byObject
}

const (
	grant = "GRANT SELECT ON oauth_access_tokens TO PUBLIC"
	alter = "ALTER TABLE oauth_access_tokens "
)

func TestCheckNamesEveryDifferenceThatMatters(t *testing.T) {
	const fatal, note = true, false
	c := newChanges(t)
	for change, want := range map[string]map[string]bool{
		"DROP TABLE oauth_access_tokens":                                   {`table "public"."oauth_access_tokens"`: fatal},
		"REVOKE SELECT ON oauth_access_tokens FROM PUBLIC":                 {`table "public"."oauth_access_tokens"`: fatal},
		"REVOKE USAGE ON SCHEMA public FROM PUBLIC":                        {`schema of "public"."oauth_access_tokens"`: fatal},
		alter + "ENABLE ROW LEVEL SECURITY":                                {`table "public"."oauth_access_tokens"`: fatal},
		alter + "DROP metadata":                                            {"column metadata": fatal},
		alter + "DROP digest":                                              {"column digest": fatal},
		alter + "RENAME jti TO id":                                         {"column jti": fatal},
		alter + "ALTER jti TYPE text":                                      {"column jti": fatal},
		alter + "ALTER digest TYPE text USING encode(digest, 'hex')":       {"column digest": fatal},
		alter + "ALTER expires_at TYPE timestamp":                          {"column expires_at": fatal},
		alter + "ALTER created_at TYPE date":                               {"column created_at": fatal},
		alter + "ALTER dpop_jkt TYPE varchar(42)":                          {"column dpop_jkt": fatal},
		alter + "DROP CONSTRAINT tokens_pk, ADD PRIMARY KEY (jti)":         {"unique index on digest": fatal},
		alter + "DROP CONSTRAINT tokens_pk, ADD PRIMARY KEY (digest, jti)": {"unique index on digest": fatal},
		alter + "DROP CONSTRAINT bound_or_not":                             {"check on token_type and dpop_jkt": note},
		alter + "DROP CONSTRAINT scopes_ok":                                {"check on scopes": note},
		alter + "DROP CONSTRAINT audience_ok":                              {"check on audience": note},
		alter + "DROP CONSTRAINT tokens_user":                              {"foreign key of user_id": note},
		alter + "DROP CONSTRAINT tokens_client, ADD FOREIGN KEY (client_id) REFERENCES oauth_clients (id)": {"foreign key of client_id": note},
		alter + "ALTER expires_at DROP NOT NULL":                                                           {"column expires_at": note},
		alter + "ALTER audience SET NOT NULL":                                                              {"column audience": note},
		"DROP INDEX tokens_by_expiry":                                                                      {"index on expires_at": note},
		"DROP INDEX tokens_by_owner":                                                                       {"index on user_id, client_id": note},
		"DROP TRIGGER touch ON oauth_access_tokens":                                                        {"trigger on UPDATE": note},
		alter + "DISABLE TRIGGER touch":                                                                    {"trigger on UPDATE": note},
	} {
		t.Run(change, func(t *testing.T) { assert.Equal(t, want, c.found(t, grant, change)) })
	}
}

func TestCheckSaysNothingAboutOtherDifferences(t *testing.T) {
	c := newChanges(t)
	for _, change := range []string{
		alter + "ADD tenant uuid, ADD note text DEFAULT 'x'",
		alter + "ALTER dpop_jkt TYPE text, ALTER scopes TYPE text[]",
		alter + "ALTER metadata TYPE json",
		alter + "ALTER metadata DROP NOT NULL, ALTER created_at DROP NOT NULL, ALTER updated_at DROP NOT NULL",
		alter + "ALTER token_type DROP DEFAULT, ALTER jti DROP DEFAULT, ALTER scopes DROP DEFAULT",
		alter + "DROP CONSTRAINT tokens_pk, ADD UNIQUE (digest)",
		alter + "ADD CHECK (expires_at > created_at)",
		"ALTER TYPE token_type RENAME TO kind_of_token",
		"CREATE INDEX ON oauth_access_tokens USING hash (jti)",
		"ALTER TABLE oauth_clients RENAME TO clients",
		"DROP INDEX tokens_by_expiry; CREATE INDEX ON oauth_access_tokens (expires_at DESC)",
		alter + "ENABLE ROW LEVEL SECURITY; CREATE POLICY all_of_them ON oauth_access_tokens FOR SELECT USING (true)",
		`ALTER TABLE oauth_access_tokens DROP CONSTRAINT bound_or_not, DROP CONSTRAINT scopes_ok; ALTER TABLE oauth_access_tokens ALTER token_type DROP DEFAULT,
			ALTER token_type TYPE text; ALTER TABLE oauth_access_tokens ADD CHECK (token_type = 'Bearer' OR dpop_jkt IS NOT NULL), ADD CHECK (scopes <> '{x}')`,
	} {
		t.Run(change, func(t *testing.T) { assert.Empty(t, c.found(t, grant, change)) })
	}
}

func TestCheckNamesAColumnThatMayNotBeRead(t *testing.T) {
	c := newChanges(t)
	assert.Equal(t, map[string]bool{"column dpop_jkt": true},
		c.found(t, "GRANT SELECT (digest, jti, client_id, user_id, token_type, scopes, audience, metadata, created_at, updated_at, expires_at) "+
			"ON oauth_access_tokens TO PUBLIC"))
	assert.Empty(t, c.found(t, "GRANT SELECT (digest, jti, client_id, user_id, token_type, dpop_jkt, scopes, audience, metadata, created_at, updated_at, "+
		"expires_at) ON oauth_access_tokens TO PUBLIC"), "nothing else needs to be readable")
}

func TestCheckNamesAnEnumWithoutOurTypes(t *testing.T) {
	dsn := tokenstoretest.Postgres(t)
	store := openPostgres(t, dsn, tokenstore.PostgresOptions{})
	require.NoError(t, store.Migrate(t.Context()))
	tokenstoretest.Exec(t, dsn, "ALTER TYPE token_type RENAME VALUE 'DPoP' TO 'dpop'")
	assert.Equal(t, map[string]bool{"column token_type": true}, checked(t, store))
}

func TestCheckTakesAViewForWhatItShows(t *testing.T) {
	dsn := guestDatabase(t)
	tokenstoretest.Exec(t, dsn, "CREATE SCHEMA api; CREATE VIEW api.tokens AS SELECT * FROM oauth_access_tokens",
		"CREATE VIEW api.fewer AS SELECT digest FROM oauth_access_tokens")
	role := tokenstoretest.Role(t, dsn, "GRANT USAGE ON SCHEMA api TO ROLE", "GRANT SELECT ON ALL TABLES IN SCHEMA api TO ROLE")
	assert.Empty(t, checked(t, openPostgres(t, role, tokenstore.PostgresOptions{Table: "api.tokens"})))
	assert.Len(t, checked(t, openPostgres(t, role, tokenstore.PostgresOptions{Table: "api.fewer"})), 11)
}

func TestDifferencesReadAsSentences(t *testing.T) {
	dsn := guestDatabase(t)
	tokenstoretest.Exec(t, dsn, alter+"DROP CONSTRAINT tokens_client, ADD FOREIGN KEY (client_id) REFERENCES oauth_clients (id) ON DELETE SET NULL",
		alter+"ALTER dpop_jkt TYPE varchar(42)")
	differences, err := openPostgres(t, dsn, tokenstore.PostgresOptions{}).Check(t.Context())
	require.NoError(t, err)
	var lines []string
	for _, d := range differences {
		lines = append(lines, d.String())
	}
	assert.Equal(t, []string{
		"column dpop_jkt: found character varying(42), want room for 43 to 128 characters",
		"foreign key of client_id: found ON DELETE SET NULL, want a foreign key with ON DELETE CASCADE",
	}, lines)
}

func TestCheckNamesWhatAnEmbeddedTableLacks(t *testing.T) {
	for change, want := range map[string]map[string]bool{
		"DROP TABLE oauth_access_tokens":                       {"table oauth_access_tokens": true},
		"ALTER TABLE oauth_access_tokens RENAME jti TO id":     {"column jti": true},
		"DROP INDEX idx_oauth_access_tokens_expires_at":        {"index on expires_at": false},
		"DROP INDEX idx_oauth_access_tokens_user_client":       {"index on user_id, client_id": false},
		"DROP TRIGGER scopes_token_chars_insert":               {"check on scopes": false},
		"DROP TRIGGER audience_uris_valid_insert":              {"check on audience": false},
		"DROP TRIGGER set_timestamp_oauth_access_tokens":       {"trigger on UPDATE": false},
		"ALTER TABLE oauth_access_tokens ADD COLUMN note TEXT": {},
	} {
		t.Run(change, func(t *testing.T) {
			b := sqliteBackend(t)
			b.exec(t, change)
			assert.Equal(t, want, checked(t, b.store))
		})
	}
}
