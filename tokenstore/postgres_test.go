package tokenstore_test

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

func TestOpenDoesNotNeedTheDatabase(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l.Close()
	store := openPostgres(t, "postgres://nobody:secret@"+l.Addr().String()+"/nothing", tokenstore.PostgresOptions{})
	_, err = store.Lookup(t.Context(), tokenstore.Digest{})
	require.Error(t, err)
	assert.NotErrorIs(t, err, tokenstore.ErrNotFound)
	assert.NotContains(t, err.Error(), "secret")
	assert.Error(t, store.Ping(t.Context()))
}

func TestOpenNeverShowsThePassword(t *testing.T) {
	for _, dsn := range []string{
		"postgres://user:s3cret@host:notaport/db",
		"postgres://user:s3cret/s3cret@host/db",
		"postgres://user:s3cret%zz@host/db",
		"postgres://user:s3cret@host/db?sslmode=s3cret",
		"postgres://user:s3cret@host/db?pool_max_conns=s3cret",
		"postgres//user:s3cret@host/db",
		"host=localhost password=s3cret port=s3cret",
		"host=localhost password='s3cret",
		"password = s3cret connect_timeout=s3cret",
		"host=localhost password=a\\ s3cret nonsense",
		"s3cret",
	} {
		_, err := tokenstore.OpenPostgres(t.Context(), dsn, tokenstore.PostgresOptions{})
		if assert.Error(t, err, dsn) {
			for _, verb := range []string{"%v", "%+v", "%#v", "%q"} {
				assert.NotContains(t, fmt.Sprintf(verb, err), "s3cret")
			}
		}
	}
}

func TestOpenRefusesATableThatIsNone(t *testing.T) {
	_, err := tokenstore.OpenPostgres(t.Context(), "postgres://localhost", tokenstore.PostgresOptions{Table: "tokens; DROP TABLE users"})
	assert.ErrorContains(t, err, `opening store: table "tokens; DROP TABLE users": `)
}

func TestGuestMayReadAndNothingElse(t *testing.T) {
	dsn := guestDatabase(t)
	owner := openPostgres(t, dsn, tokenstore.PostgresOptions{})
	reader := guest(t, dsn, tokenstore.PostgresOptions{})
	r := insert(t, owner, nil)

	got, err := reader.Lookup(t.Context(), r.Digest)
	require.NoError(t, err)
	assert.Equal(t, r, got)
	assert.NoError(t, reader.Ping(t.Context()))
	differences, err := reader.Check(t.Context())
	require.NoError(t, err)
	assert.Empty(t, differences)

	assert.ErrorContains(t, reader.Insert(t.Context(), newRecord()), "permission denied")
	_, err = reader.Revoke(t.Context(), tokenstore.Selector{JTI: &r.JTI})
	assert.ErrorContains(t, err, "permission denied")
	_, err = reader.Purge(t.Context(), time.Now(), 1)
	assert.ErrorContains(t, err, "permission denied")
}

// An authorization server knows nothing of this package: its SQL hashes the token in the database.
func TestLookupFindsWhatAnAuthorizationServerIssues(t *testing.T) {
	dsn := guestDatabase(t)
	store := guest(t, dsn, tokenstore.PostgresOptions{})
	tokenstoretest.Exec(t, dsn, `CREATE EXTENSION IF NOT EXISTS pgcrypto`, `
		INSERT INTO oauth_access_tokens (digest, client_id, user_id, token_type, dpop_jkt, scopes, expires_at)
		SELECT digest, '`+client.String()+`', '`+user.String()+`', 'DPoP', '`+thumbprint+`', '{orders:read}', '2040-01-01 00:00+01'
		FROM (VALUES (sha256('plain-token')), (hmac('peppered-token', '\x00ff706570706572'::bytea, 'sha256'))) AS issued (digest)`)
	for token, digester := range map[tokenstore.Token]tokenstore.Digester{
		"plain-token":    {},
		"peppered-token": tokenstore.NewHMAC([]byte("\x00\xffpepper")),
	} {
		r, err := store.Lookup(t.Context(), digester.Digest(token))
		require.NoError(t, err)
		assert.Equal(t, tokenstore.DPoP, r.TokenType)
		assert.Equal(t, thumbprint, r.DPoPJKT)
		assert.Equal(t, []string{"orders:read"}, r.Scopes)
		assert.Nil(t, r.Audience)
		assert.Equal(t, uuid.NullUUID{UUID: user, Valid: true}, r.UserID)
		assert.JSONEq(t, `{}`, string(r.Metadata))
		assert.Equal(t, time.Date(2039, 12, 31, 23, 0, 0, 0, time.UTC), r.ExpiresAt)
	}
	_, err := store.Lookup(t.Context(), tokenstore.Digester{}.Digest("peppered-token"))
	assert.ErrorIs(t, err, tokenstore.ErrNotFound)
}

// looseTable has all columns and no constraint, as after a careless restore.
const looseTable = `CREATE TYPE token_type AS ENUM ('Bearer', 'DPoP');
	CREATE TABLE oauth_access_tokens (digest bytea, jti uuid, client_id uuid, user_id uuid, token_type token_type, dpop_jkt text,
		scopes text[], audience text[], metadata jsonb, created_at timestamptz, updated_at timestamptz, expires_at timestamptz)`

// attack: 118
func TestOddRowsGrantLess(t *testing.T) {
	dsn := tokenstoretest.Postgres(t)
	tokenstoretest.Exec(t, dsn, looseTable)
	store := guest(t, dsn, tokenstore.PostgresOptions{})
	now := time.Now()
	noScopes := func(t *testing.T, r *tokenstore.Record) { assert.Empty(t, r.Scopes) }
	nobody := func(t *testing.T, r *tokenstore.Record) { assert.NotNil(t, r.Audience); assert.Empty(t, r.Audience) }
	expired := func(t *testing.T, r *tokenstore.Record) { assert.True(t, r.Expired(now)) }
	noMetadata := func(t *testing.T, r *tokenstore.Record) { assert.Equal(t, "{}", string(r.Metadata)) }
	for set, holds := range map[string]func(*testing.T, *tokenstore.Record){
		"dpop_jkt = NULL":                       func(t *testing.T, r *tokenstore.Record) { assert.Empty(t, r.DPoPJKT); assert.True(t, r.Bound()) },
		"dpop_jkt = ''":                         func(t *testing.T, r *tokenstore.Record) { assert.Empty(t, r.DPoPJKT); assert.True(t, r.Bound()) },
		"token_type = 'Bearer'":                 func(t *testing.T, r *tokenstore.Record) { assert.True(t, r.Bound()) },
		"token_type = NULL":                     func(t *testing.T, r *tokenstore.Record) { assert.Empty(t, r.TokenType); assert.True(t, r.Bound()) },
		"scopes = NULL":                         noScopes,
		"scopes = '{a,NULL,b}'":                 noScopes,
		"scopes = '{{a,b},{c,d}}'":              noScopes,
		"scopes = '{a,\"b admin\"}'":            noScopes,
		"scopes = E'{\"a\\nb\"}'":               noScopes,
		"scopes = '{a,\"\"}'":                   noScopes,
		"audience = '{}'":                       nobody,
		"audience = '{NULL}'":                   nobody,
		"audience = '{https://a.example,NULL}'": nobody,
		"audience = '{{https://a.example},{https://b.example}}'": nobody,
		"expires_at = NULL":                  expired,
		"expires_at = 'infinity'":            expired,
		"expires_at = '-infinity'":           expired,
		"expires_at = '4713-01-01 00:00 BC'": expired,
		"expires_at = '294276-12-31'":        func(t *testing.T, r *tokenstore.Record) { assert.Equal(t, 294276, r.ExpiresAt.Year()) },
		"metadata = NULL":                    noMetadata,
		"metadata = 'null'":                  noMetadata,
		"metadata = '[{}]'":                  noMetadata,
		"created_at = NULL, updated_at = 'infinity'": func(t *testing.T, r *tokenstore.Record) {
			assert.True(t, r.CreatedAt.IsZero())
			assert.True(t, r.UpdatedAt.IsZero())
		},
		"jti = NULL, client_id = NULL, user_id = NULL": func(t *testing.T, r *tokenstore.Record) {
			assert.Equal(t, uuid.Nil, r.JTI)
			assert.Equal(t, uuid.Nil, r.ClientID)
			assert.False(t, r.UserID.Valid)
		},
	} {
		t.Run(set, func(t *testing.T) {
			r := newRecord()
			tokenstoretest.Exec(t, dsn, fmt.Sprintf(`INSERT INTO oauth_access_tokens VALUES ('\x%s', '%s', '%s', '%s', 'DPoP', '%s',
				'{orders:read}', NULL, '{"a": 1}', now(), now(), now() + '1 hour')`, r.Digest, uuid.New(), client, user, thumbprint),
				fmt.Sprintf(`UPDATE oauth_access_tokens SET %s WHERE digest = '\x%s'`, set, r.Digest))
			got, err := store.Lookup(t.Context(), r.Digest)
			require.NoError(t, err)
			holds(t, got)
		})
	}
}

// attack: 118, 177
func TestATableThatCannotBeReadIsNotAnUnknownToken(t *testing.T) {
	dsn := tokenstoretest.Postgres(t)
	role := tokenstoretest.Role(t, dsn)
	insertOne := `INSERT INTO oauth_access_tokens VALUES ('\x%s', '` + uuid.NewString() + `', '` + client.String() + `', NULL, 'Bearer', NULL,
		'{}', NULL, '{}', now(), now(), now() + '1 hour')`
	for _, change := range []string{
		"ALTER TABLE oauth_access_tokens DROP COLUMN dpop_jkt",
		"ALTER TABLE oauth_access_tokens DROP COLUMN audience",
		"ALTER TABLE oauth_access_tokens ALTER digest TYPE text USING encode(digest, 'hex')",
		"ALTER TABLE oauth_access_tokens ALTER expires_at TYPE timestamp",
		"ALTER TABLE oauth_access_tokens ALTER scopes TYPE jsonb USING to_jsonb(scopes)",
		"ALTER TABLE oauth_access_tokens ALTER jti TYPE text",
		"ALTER TABLE oauth_access_tokens RENAME TO tokens",
		"INSERT INTO oauth_access_tokens SELECT * FROM oauth_access_tokens", // two rows with one digest
		"REVOKE SELECT ON oauth_access_tokens FROM PUBLIC",
	} {
		t.Run(change, func(t *testing.T) {
			d := newRecord().Digest
			tokenstoretest.Exec(t, dsn, "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC",
				looseTable, fmt.Sprintf(insertOne, d), "GRANT SELECT ON oauth_access_tokens TO PUBLIC")
			store := openPostgres(t, role, tokenstore.PostgresOptions{})
			_, err := store.Lookup(t.Context(), d)
			require.NoError(t, err)
			tokenstoretest.Exec(t, dsn, change)
			_, err = store.Lookup(t.Context(), d)
			require.Error(t, err)
			assert.NotErrorIs(t, err, tokenstore.ErrNotFound)
		})
	}
}

func TestInsertNamesTheClientOrUserThatIsMissing(t *testing.T) {
	for name, open := range map[string]func(testing.TB) backend{"postgres": postgresBackend, "guest": guestBackend} {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			stranger := uuid.New()
			for column, c := range map[string]struct {
				change func(*tokenstore.Record)
				want   string
			}{
				"client_id": {func(r *tokenstore.Record) { r.ClientID = stranger }, "client " + stranger.String() + " is not in oauth_clients"},
				"user_id":   {func(r *tokenstore.Record) { r.UserID.UUID = stranger }, "user " + stranger.String() + " is not in users"},
			} {
				r := newRecord()
				c.change(r)
				err := b.store.Insert(t.Context(), r)
				var unknown *tokenstore.UnknownReferenceError
				require.ErrorAs(t, err, &unknown)
				assert.Equal(t, column, unknown.Column)
				assert.Equal(t, stranger, unknown.ID)
				assert.ErrorContains(t, err, c.want)
			}
		})
	}
}

func TestDeletingAnOwnerDeletesTheTokens(t *testing.T) {
	for name, open := range map[string]func(testing.TB) backend{"postgres": postgresBackend, "guest": guestBackend} {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			r := insert(t, b.store, nil)
			b.exec(t, "DELETE FROM users")
			_, err := b.store.Lookup(t.Context(), r.Digest)
			assert.ErrorIs(t, err, tokenstore.ErrNotFound)
		})
	}
}

// A server that refuses further connections goes on serving those it has, and so does the pool.
func TestLookupsShareTheConnectionsThatTheServerAllows(t *testing.T) {
	dsn := guestDatabase(t)
	r := insert(t, openPostgres(t, dsn, tokenstore.PostgresOptions{}), nil)
	store := openPostgres(t, tokenstoretest.Role(t, dsn, "GRANT SELECT ON oauth_access_tokens TO ROLE", "ALTER role ROLE CONNECTION LIMIT 2"),
		tokenstore.PostgresOptions{})
	_, err := store.Lookup(t.Context(), r.Digest)
	require.NoError(t, err)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			_, err := store.Lookup(t.Context(), r.Digest)
			assert.NoError(t, err)
		})
	}
	all.Wait()
}

// Transaction-pooling proxies do not carry prepared statements; these settings are how people tell pgx.
func TestLookupWorksInEveryQueryMode(t *testing.T) {
	dsn := guestDatabase(t)
	r := insert(t, openPostgres(t, dsn, tokenstore.PostgresOptions{}), nil)
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		store := openPostgres(t, withSetting(dsn, "default_query_exec_mode", mode), tokenstore.PostgresOptions{})
		got, err := store.Lookup(t.Context(), r.Digest)
		require.NoError(t, err, mode)
		assert.Equal(t, r, got, mode)
		insert(t, store, nil)
		differences, err := store.Check(t.Context())
		require.NoError(t, err, mode)
		assert.Empty(t, differences, mode)
	}
}
