// Package tokenstoretest gives tests databases on a real Postgres server.
package tokenstoretest

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// Variable names the environment variable with the URL or DSN of a superuser on a running server. Without it a test
// that asks for a database fails in CI and is skipped elsewhere.
const Variable = "DPOPGATE_TEST_POSTGRES"

// patience bounds every statement here; creating a database takes a while on a busy machine.
const patience = 2 * time.Minute

// Postgres is the DSN of a fresh, empty database, as a superuser. It is dropped when the test ends, whoever is still
// connected to it.
func Postgres(t testing.TB) string {
	t.Helper()
	server := os.Getenv(Variable)
	if server == "" {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not set: this test needs a Postgres server", Variable)
		}
		t.Skipf("%s is not set: ./test starts a Postgres server and sets it", Variable)
	}
	name := "dpopgate_test_" + word()
	Exec(t, server, "CREATE DATABASE "+name)
	t.Cleanup(func() { Exec(t, server, "DROP DATABASE "+name+" WITH (FORCE)") })
	return with(t, server, map[string]string{"dbname": name})
}

// Role is the DSN of a new role without any right but those that the statements give it; in them ROLE stands for its
// name. It is dropped when the test ends.
func Role(t testing.TB, dsn string, statements ...string) string {
	t.Helper()
	role, password := "dpopgate_test_"+word(), word()
	Exec(t, dsn, "CREATE ROLE "+role+" LOGIN PASSWORD '"+password+"'")
	t.Cleanup(func() { Exec(t, dsn, "DROP OWNED BY "+role, "DROP ROLE "+role) })
	for _, statement := range statements {
		Exec(t, dsn, strings.ReplaceAll(statement, "ROLE", role))
	}
	return with(t, dsn, map[string]string{"user": role, "password": password})
}

// Exec runs statements, each of which may be a whole script, and stops the test when one fails.
func Exec(t testing.TB, dsn string, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	require.NoError(t, err)
	defer conn.Close(ctx)
	for _, statement := range statements {
		_, err := conn.PgConn().Exec(ctx, statement).ReadAll()
		require.NoError(t, err, "running %s", statement)
	}
}

// with is the DSN with some keywords changed. Values are words.
func with(t testing.TB, dsn string, keywords map[string]string) string {
	t.Helper()
	if !strings.Contains(dsn, "://") {
		for key, value := range keywords {
			dsn += " " + key + "=" + value
		}
		return dsn
	}
	u, err := url.Parse(dsn)
	require.NoError(t, err, "%s", Variable)
	q := u.Query()
	for key, value := range keywords {
		q.Del(key)
		switch key {
		case "dbname":
			u.Path = "/" + value
		case "user":
			u.User = url.UserPassword(value, keywords["password"])
		}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// word is one that nobody else has: identifiers fold to lower case.
func word() string { return strings.ToLower(rand.Text()) }
