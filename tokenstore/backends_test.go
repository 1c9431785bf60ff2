package tokenstore_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// The client and user that every test's store knows.
var (
	client = uuid.MustParse("00000000-0000-4000-8000-0000000c11e7")
	user   = uuid.MustParse("00000000-0000-4000-8000-00000000a11c")
)

// thumbprint has the form of one.
var thumbprint = strings.Repeat("k", 43)

// patient is a timeout that is never the thing tested, however slow the machine.
const patient = time.Minute

// backend is a store and the way to reach around it, as other software does.
type backend struct {
	store tokenstore.Store
	owner string // DSN of the role that owns the table; empty: it is a file
	exec  func(t testing.TB, statement string)
	// spelling of the values that the two databases write differently
	array func(elements ...string) string
	bytes func(d tokenstore.Digest) string
	unit  time.Duration // of stored times
}

var backends = map[string]func(testing.TB) backend{
	"sqlite":   sqliteBackend,
	"postgres": postgresBackend,
	"guest":    guestBackend,
}

// each runs a test on all backends.
func each(t *testing.T, test func(*testing.T, backend)) {
	for name, open := range backends {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func sqliteBackend(t testing.TB) backend {
	path := filepath.Join(t.TempDir(), "tokens.db")
	return backend{
		store: openSQLite(t, path),
		exec:  func(t testing.TB, statement string) { execSQLite(t, path, statement) },
		array: func(elements ...string) string { return `'["` + strings.Join(elements, `","`) + `"]'` },
		bytes: func(d tokenstore.Digest) string { return "X'" + d.String() + "'" },
		unit:  time.Millisecond,
	}
}

// postgresBackend has the table that Migrate creates.
func postgresBackend(t testing.TB) backend {
	dsn := tokenstoretest.Postgres(t)
	store := openPostgres(t, dsn, tokenstore.PostgresOptions{})
	require.NoError(t, store.Migrate(t.Context()))
	tokenstoretest.Exec(t, dsn, "INSERT INTO oauth_clients VALUES ('"+client.String()+"')", "INSERT INTO users VALUES ('"+user.String()+"')")
	return pgBackend(store, dsn)
}

// guestBackend has the table of another product, and no more rights than it needs.
func guestBackend(t testing.TB) backend {
	dsn := guestDatabase(t)
	role := tokenstoretest.Role(t, dsn, "GRANT SELECT, INSERT, DELETE ON oauth_access_tokens TO ROLE")
	return pgBackend(openPostgres(t, role, tokenstore.PostgresOptions{}), dsn)
}

func pgBackend(store tokenstore.Store, dsn string) backend {
	return backend{
		store: store,
		owner: dsn,
		exec:  func(t testing.TB, statement string) { tokenstoretest.Exec(t, dsn, statement) },
		array: func(elements ...string) string { return `ARRAY['` + strings.Join(elements, `','`) + `']::text[]` },
		bytes: func(d tokenstore.Digest) string { return `'\x` + d.String() + `'` },
		unit:  time.Microsecond,
	}
}

// guestDatabase is a database in which an authorization server has made the table.
func guestDatabase(t testing.TB) string {
	dsn := tokenstoretest.Postgres(t)
	ddl, err := os.ReadFile("testdata/schema/authserver.sql")
	require.NoError(t, err)
	tokenstoretest.Exec(t, dsn, string(ddl))
	return dsn
}

// guest is a store whose role may read that table and nothing else.
func guest(t testing.TB, dsn string, opts tokenstore.PostgresOptions) *tokenstore.Postgres {
	return openPostgres(t, tokenstoretest.Role(t, dsn, "GRANT SELECT ON oauth_access_tokens TO ROLE"), opts)
}

func openPostgres(t testing.TB, dsn string, opts tokenstore.PostgresOptions) *tokenstore.Postgres {
	t.Helper()
	if opts.Timeout == 0 {
		opts.Timeout = patient
	}
	store, err := tokenstore.OpenPostgres(context.Background(), dsn, opts)
	require.NoError(t, err)
	t.Cleanup(func() { store.Close() })
	return store
}

func openSQLite(t testing.TB, path string) *tokenstore.SQLite {
	t.Helper()
	store, err := tokenstore.OpenSQLite(context.Background(), path, tokenstore.SQLiteOptions{Timeout: patient})
	require.NoError(t, err)
	t.Cleanup(func() { store.Close() })
	return store
}

// newRecord is a good one, bound to a key, of a token of its own.
func newRecord() *tokenstore.Record {
	return &tokenstore.Record{
		Digest:    tokenstore.Digester{}.Digest(tokenstore.NewToken()),
		ClientID:  client,
		UserID:    uuid.NullUUID{UUID: user, Valid: true},
		TokenType: tokenstore.DPoP,
		DPoPJKT:   thumbprint,
		Scopes:    []string{"orders:write", "orders:read"},
		Audience:  []string{"https://api.example.com"},
		Metadata:  []byte(`{"device": "phone"}`),
		ExpiresAt: time.Now().Add(time.Hour),
	}
}

// insert adds a record, changed as the test wants it.
func insert(t testing.TB, store tokenstore.Store, change func(*tokenstore.Record)) *tokenstore.Record {
	t.Helper()
	r := newRecord()
	if change != nil {
		change(r)
	}
	require.NoError(t, store.Insert(t.Context(), r))
	return r
}

// withSetting adds a setting to a DSN.
func withSetting(dsn, key, value string) string {
	switch {
	case !strings.Contains(dsn, "://"):
		return dsn + " " + key + "=" + value
	case strings.Contains(dsn, "?"):
		return dsn + "&" + key + "=" + value
	default:
		return dsn + "?" + key + "=" + value
	}
}
