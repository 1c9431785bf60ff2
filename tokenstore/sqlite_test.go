package tokenstore_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"
)

// execSQLite runs a statement as another program does.
func execSQLite(t testing.TB, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(5000)")
	require.NoError(t, err)
	defer db.Close()
	_, err = db.Exec(statement)
	require.NoError(t, err)
}
