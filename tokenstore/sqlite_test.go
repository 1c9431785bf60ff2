package tokenstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
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

func TestFilesAreTheirOwnersAlone(t *testing.T) {
	dir := t.TempDir()
	store := openSQLite(t, filepath.Join(dir, "tokens.db"))
	insert(t, store, nil)
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, files, 3, "the database, its log and its index")
	for _, f := range files {
		info, err := f.Info()
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode(), f.Name())
	}
}

func TestAnyPathIsAPath(t *testing.T) {
	for _, name := range []string{"a b.db", "what?.db", "50%.db", "#1.db", "ünï.db", "file:x.db", ":memory:", "x.db?mode=ro"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			insert(t, openSQLite(t, filepath.Join(dir, name)), nil)
			assert.FileExists(t, filepath.Join(dir, name))
		})
	}
	t.Chdir(t.TempDir())
	insert(t, openSQLite(t, "relative.db"), nil)
	assert.FileExists(t, "relative.db")
}

func TestRecordsOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	first := openSQLite(t, path)
	r := insert(t, first, nil)
	require.NoError(t, first.Close())
	got, err := openSQLite(t, path).Lookup(t.Context(), r.Digest)
	require.NoError(t, err)
	assert.Equal(t, r, got)
}

func TestOpenSaysWhatIsWrongWithAFile(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "notes.txt")
	require.NoError(t, os.WriteFile(text, []byte("this is not a database, but long enough to be taken for one by its size alone"), 0o600))
	for path, want := range map[string]string{
		"":                                    "the path is empty",
		filepath.Join(dir, "no", "tokens.db"): "the folder " + filepath.Join(dir, "no") + " is not there",
		text:                                  "it is not a SQLite database",
		dir:                                   "opening store " + dir,
	} {
		_, err := tokenstore.OpenSQLite(t.Context(), path, tokenstore.SQLiteOptions{})
		assert.ErrorContains(t, err, want)
	}
	content, err := os.ReadFile(text)
	require.NoError(t, err)
	assert.Contains(t, string(content), "this is not a database")
}

// A gateway that starts and `dpopgate token issue` may both be the first.
func TestManyMayCreateTheStoreAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			store, err := tokenstore.OpenSQLite(t.Context(), path, tokenstore.SQLiteOptions{Timeout: patient})
			if assert.NoError(t, err) {
				assert.NoError(t, store.Insert(t.Context(), newRecord()))
				assert.NoError(t, store.Close())
			}
		})
	}
	all.Wait()
	list, err := openSQLite(t, path).List(t.Context(), tokenstore.Selector{}, tokenstore.Digest{}, 10)
	require.NoError(t, err)
	assert.Len(t, list, 8)
}

// The test binary runs itself as the other process: see TestMain.
func TestAnotherProcessIssuesWhileThisOneServes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	store := openSQLite(t, path)
	r := insert(t, store, nil)
	self, err := os.Executable()
	require.NoError(t, err)
	other := exec.CommandContext(t.Context(), self)
	other.Env = append(os.Environ(), issueInto+"="+path)
	other.Stderr = os.Stderr
	require.NoError(t, other.Start())
	done := make(chan error)
	go func() { done <- other.Wait() }()
	for running := true; running; {
		select {
		case err := <-done:
			require.NoError(t, err)
			running = false
		default:
			_, err := store.Lookup(t.Context(), r.Digest)
			require.NoError(t, err)
			insert(t, store, nil)
		}
	}
	got, err := store.Lookup(t.Context(), tokenstore.Digester{}.Digest("token 99"))
	require.NoError(t, err)
	assert.Equal(t, client, got.ClientID)
}

// issueInto names the variable that makes the test binary issue tokens into a store instead of running tests.
const issueInto = "TOKENSTORE_TEST_ISSUE_INTO"

func TestMain(m *testing.M) {
	path := os.Getenv(issueInto)
	if path == "" {
		os.Exit(m.Run())
	}
	if err := issueHundred(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// attack: 118
func TestOddRowsOfAnEmbeddedTableGrantLess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.db")
	execSQLite(t, path, `CREATE TABLE oauth_access_tokens (digest, jti, client_id, user_id, token_type, dpop_jkt, scopes, audience, metadata,
		created_at, updated_at, expires_at)`)
	store := openSQLite(t, path)
	for column, values := range map[string][]string{
		"scopes":     {"NULL", "''", "'null'", "'{}'", "'[1]'", `'["a",null]'`, `'["a b"]'`, `'["a"] x'`, `'["a",["b"]]'`, "'nonsense'", "7"},
		"audience":   {"'[]'", "''", "'null'", "'{}'", "'[1]'", `'["https://a.example",null]'`},
		"expires_at": {"NULL", "''", "'infinity'", "'2040-01-01'", "'2040-01-01 00:00:00'", "2208988800", "'2040-13-01T00:00:00.000Z'"},
		"metadata":   {"NULL", "''", "'null'", "'[]'", "'{'", "7"},
	} {
		for _, value := range values {
			r := newRecord()
			execSQLite(t, path, fmt.Sprintf(`INSERT INTO oauth_access_tokens VALUES (X'%s', '%s', '%s', NULL, 'DPoP', '%s', '["orders:read"]', NULL,
				'{"a":1}', '2025-01-01T00:00:00.000Z', '2025-01-01T00:00:00.000Z', '2040-01-01T00:00:00.000Z')`, r.Digest, client, client, thumbprint))
			execSQLite(t, path, fmt.Sprintf(`UPDATE oauth_access_tokens SET %s = %s WHERE digest = X'%s'`, column, value, r.Digest))
			got, err := store.Lookup(t.Context(), r.Digest)
			require.NoError(t, err, "%s = %s", column, value)
			assert.Equal(t, column == "scopes", len(got.Scopes) == 0, "%s = %s", column, value)
			assert.Equal(t, column == "audience", got.Audience != nil && len(got.Audience) == 0, "%s = %s", column, value)
			assert.Equal(t, column == "expires_at", got.ExpiresAt.IsZero(), "%s = %s", column, value)
			assert.Equal(t, column == "metadata", string(got.Metadata) == "{}", "%s = %s", column, value)
		}
	}
}

func issueHundred(path string) error {
	ctx := context.Background()
	store, err := tokenstore.OpenSQLite(ctx, path, tokenstore.SQLiteOptions{})
	if err != nil {
		return err
	}
	defer store.Close()
	for i := range 100 {
		r := newRecord()
		r.Digest = tokenstore.Digester{}.Digest(tokenstore.Token(fmt.Sprintf("token %d", i)))
		if err := store.Insert(ctx, r); err != nil {
			return err
		}
	}
	return nil
}
