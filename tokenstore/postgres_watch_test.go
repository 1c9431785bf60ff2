package tokenstore_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// announcing is a store whose table announces its changes, with a number of tokens of the test's user and client.
func announcing(t testing.TB, tokens int) (store *tokenstore.Postgres, dsn string, digests []tokenstore.Digest) {
	t.Helper()
	b := postgresBackend(t)
	store = b.store.(*tokenstore.Postgres)
	require.NoError(t, store.MigrateRevocation(t.Context()))
	fill(t, b.owner, tokens, "")
	for _, d := range query(t, b.owner, "SELECT encode(digest, 'hex') FROM oauth_access_tokens") {
		digests = append(digests, tokenstore.ParseNotice("deleted "+d).Digests...)
	}
	require.Len(t, digests, tokens)
	return store, b.owner, digests
}

// fill adds tokens of the test's client and user, with other values for some columns.
func fill(t testing.TB, dsn string, tokens int, values string) {
	t.Helper()
	if values == "" {
		values = "now() + interval '1 hour'"
	}
	tokenstoretest.Exec(t, dsn, fmt.Sprintf(`INSERT INTO oauth_access_tokens (digest, client_id, user_id, expires_at)
		SELECT sha256(gen_random_uuid()::text::bytea), '%s', '%s', %s FROM generate_series(1, %d)`, client, user, values, tokens))
}

// Whatever statement takes tokens away or changes them, and how many: they are told of in few notices.
//
// attack: 109
func TestEveryStatementIsAnnounced(t *testing.T) {
	for name, c := range map[string]struct {
		tokens    int
		statement string
		notices   int
	}{
		"one deleted":                 {1, "DELETE FROM oauth_access_tokens", 1},
		"as many as fit":              {124, "DELETE FROM oauth_access_tokens", 1},
		"one more":                    {125, "DELETE FROM oauth_access_tokens", 2},
		"as many as are named":        {2000, "DELETE FROM oauth_access_tokens", 17},
		"more than that":              {2001, "DELETE FROM oauth_access_tokens", 1},
		"thousands":                   {5000, "DELETE FROM oauth_access_tokens", 1},
		"by their user":               {300, "DELETE FROM users", 3},
		"by their client":             {300, "DELETE FROM oauth_clients", 3},
		"thousands by their user":     {5000, "DELETE FROM users", 1},
		"truncated":                   {300, "TRUNCATE oauth_access_tokens", 1},
		"truncated by their user":     {300, "TRUNCATE users CASCADE", 1},
		"expired":                     {300, "UPDATE oauth_access_tokens SET expires_at = now()", 3},
		"of fewer scopes":             {1, "UPDATE oauth_access_tokens SET scopes = '{other}'", 1},
		"for another audience":        {1, "UPDATE oauth_access_tokens SET audience = '{https://other.example}'", 1},
		"with another key":            {1, "UPDATE oauth_access_tokens SET token_type = 'DPoP', dpop_jkt = repeat('k', 43)", 1},
		"with other metadata":         {1, `UPDATE oauth_access_tokens SET metadata = '{"a": 1}'`, 1},
		"without a user":              {1, "UPDATE oauth_access_tokens SET user_id = NULL", 1},
		"under another digest":        {1, "UPDATE oauth_access_tokens SET digest = sha256(digest)", 1},
		"in an altered table":         {1, "ALTER TABLE oauth_access_tokens DROP metadata; UPDATE oauth_access_tokens SET scopes = '{a}'", 1},
		"with another type of column": {1, "ALTER TABLE oauth_access_tokens RENAME expires_at TO until; DELETE FROM oauth_access_tokens", 1},
	} {
		t.Run(name, func(t *testing.T) {
			store, dsn, digests := announcing(t, c.tokens)
			e := listen(t, store)
			tokenstoretest.Exec(t, dsn, c.statement)
			assert.Equal(t, c.notices, e.hears(t, digests...))
		})
	}
}

// One statement that deletes many users fires the trigger of their tokens once for all, or a few times.
func TestManyCascadesAreFewNotices(t *testing.T) {
	store, dsn, _ := announcing(t, 0)
	tokenstoretest.Exec(t, dsn, "DELETE FROM users; INSERT INTO users SELECT gen_random_uuid() FROM generate_series(1, 1000)",
		fmt.Sprintf(`INSERT INTO oauth_access_tokens (digest, client_id, user_id, expires_at)
			SELECT sha256(gen_random_uuid()::text::bytea), '%s', id, now() + interval '1 hour' FROM users`, client))
	var digests []tokenstore.Digest
	for _, d := range query(t, dsn, "SELECT encode(digest, 'hex') FROM oauth_access_tokens") {
		digests = append(digests, tokenstore.ParseNotice("deleted "+d).Digests...)
	}
	e := listen(t, store)
	tokenstoretest.Exec(t, dsn, "DELETE FROM users")
	assert.Less(t, e.hears(t, digests...), 20)
}

func TestWhatChangesNothingForATokenIsNotAnnounced(t *testing.T) {
	store, dsn, digests := announcing(t, 1)
	tokenstoretest.Exec(t, dsn, "ALTER TABLE oauth_access_tokens ADD last_used timestamptz")
	e := listen(t, store)
	for _, statement := range []string{
		"UPDATE oauth_access_tokens SET last_used = now()",
		"UPDATE oauth_access_tokens SET scopes = scopes, metadata = metadata",
		"DELETE FROM oauth_access_tokens WHERE false",
	} {
		tokenstoretest.Exec(t, dsn, statement)
	}
	fill(t, dsn, 5000, "now() - interval '1 hour'") // inserted, and purged long after they expired
	_, err := store.Purge(t.Context(), time.Now().Add(-30*time.Minute), 10_000)
	require.NoError(t, err)
	tokenstoretest.Exec(t, dsn, "DELETE FROM oauth_access_tokens")
	assert.Equal(t, tokenstore.Change{Digests: digests, Deleted: true}, e.next(t), "the first to be announced")
}

func TestARolledBackChangeIsNotAnnounced(t *testing.T) {
	store, dsn, digests := announcing(t, 1)
	e := listen(t, store)
	tokenstoretest.Exec(t, dsn, "BEGIN; TRUNCATE oauth_access_tokens; ROLLBACK", "DELETE FROM oauth_access_tokens")
	assert.Equal(t, tokenstore.Change{Digests: digests, Deleted: true}, e.next(t))
}

func TestEveryTableNameIsAnnounced(t *testing.T) {
	for _, table := range []string{
		"auth.oauth_access_tokens",
		"tokens",
		`"Auth Server"."Tokens; DROP TABLE users; --"`,
		`"it's"."$migrate$ \ ""x"""`,
		`a_schema_with_a_name_as_long_as_postgres_can_hold_in_63_bytes_x.a_table_with_a_name_as_long_as_postgres_can_hold_in_63_bytes_yy`,
		`"ein_Name_der_mitten_in_einem_Zeichen_abgeschnitten_wird_äää"`,
	} {
		t.Run(table, func(t *testing.T) {
			dsn := tokenstoretest.Postgres(t)
			store := openPostgres(t, dsn, tokenstore.PostgresOptions{Table: table})
			require.ErrorContains(t, store.MigrateRevocation(t.Context()), "there is no table")
			require.ErrorIs(t, store.CheckRevocation(t.Context()), tokenstore.ErrNoNotices)
			require.NoError(t, store.Migrate(t.Context()))
			require.ErrorContains(t, store.CheckRevocation(t.Context()), "migrate --revocation")
			require.NoError(t, store.MigrateRevocation(t.Context()))
			once := structureOf(t, dsn)
			require.NoError(t, store.MigrateRevocation(t.Context()))
			assert.Equal(t, once, structureOf(t, dsn), "again changes nothing")
			require.NoError(t, store.CheckRevocation(t.Context()))

			clients := query(t, dsn, "SELECT oid::regclass::text FROM pg_class WHERE relname = 'oauth_clients'")[0]
			tokenstoretest.Exec(t, dsn, "INSERT INTO "+clients+" VALUES ('"+client.String()+"')")
			e := listen(t, store)
			r := insert(t, store, func(r *tokenstore.Record) { r.UserID.Valid = false })
			tokenstoretest.Exec(t, dsn, "DELETE FROM "+clients)
			assert.Equal(t, tokenstore.Change{Digests: []tokenstore.Digest{r.Digest}, Deleted: true}, e.next(t))
		})
	}
}

// The authorization server's role owns the table; the gateway's may read it, which is enough to listen.
func TestAReaderHearsWhatTheOwnerInstalled(t *testing.T) {
	dsn := guestDatabase(t)
	reader := guest(t, dsn, tokenstore.PostgresOptions{})
	require.ErrorContains(t, reader.MigrateRevocation(t.Context()), "installing the revocation trigger: ")
	err := watch(t, reader).fails(t)
	require.ErrorIs(t, err, tokenstore.ErrNoNotices)
	assert.ErrorContains(t, err, "UPDATE, DELETE, TRUNCATE")

	tokenstoretest.Exec(t, dsn, reader.RevocationSQL())
	require.NoError(t, reader.CheckRevocation(t.Context()))
	e := listen(t, reader)
	r := insert(t, openPostgres(t, dsn, tokenstore.PostgresOptions{}), nil)
	tokenstoretest.Exec(t, dsn, "DELETE FROM oauth_access_tokens")
	e.hears(t, r.Digest)

	// What the owner does with the trigger is noticed, too.
	tokenstoretest.Exec(t, dsn, "ALTER TABLE oauth_access_tokens DISABLE TRIGGER dpopgate_revocation_delete")
	err = e.fails(t)
	require.ErrorIs(t, err, tokenstore.ErrNoNotices)
	assert.ErrorContains(t, err, "no trigger of ours on DELETE;")
	tokenstoretest.Exec(t, dsn, reader.RevocationSQL())
	assert.NoError(t, reader.CheckRevocation(t.Context()))
}

func TestAViewIsNotAnnounced(t *testing.T) {
	dsn := guestDatabase(t)
	tokenstoretest.Exec(t, dsn, "CREATE VIEW tokens AS SELECT * FROM oauth_access_tokens")
	store := openPostgres(t, dsn, tokenstore.PostgresOptions{Table: "tokens"})
	assert.ErrorContains(t, store.MigrateRevocation(t.Context()), "is not a table")
	assert.ErrorIs(t, store.CheckRevocation(t.Context()), tokenstore.ErrNoNotices)
}

// Those who write to the table do not wait behind a migration that waits for one of them.
func TestMigrateRevocationWaitsForNobodyLong(t *testing.T) {
	b := postgresBackend(t)
	conn, err := pgx.Connect(t.Context(), b.owner)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	slow, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = slow.Exec(t.Context(), "DELETE FROM oauth_access_tokens")
	require.NoError(t, err)
	assert.ErrorContains(t, b.store.(*tokenstore.Postgres).MigrateRevocation(t.Context()), "lock timeout")
}

// The listener's backend is killed, tokens are revoked, and nothing tells of them later: the next Watch begins with All.
//
// attack: 112
func TestWhatIsMissedIsMadeUpFor(t *testing.T) {
	store, dsn, digests := announcing(t, 1)
	e := listen(t, store)
	tokenstoretest.Exec(t, dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	require.NotErrorIs(t, e.fails(t), tokenstore.ErrNoNotices)
	tokenstoretest.Exec(t, dsn, "DELETE FROM oauth_access_tokens")
	e = watch(t, store)
	require.True(t, e.next(t).All)
	require.EventuallyWithT(t, func(c *assert.CollectT) { // the listener may have used up what may be dialled just now
		r, err := store.Lookup(t.Context(), digests[0])
		require.Nil(t, r, "never what was there before")
		assert.ErrorIs(c, err, tokenstore.ErrNotFound)
	}, patient, 10*time.Millisecond)
}

// The connection stays up and is silent, and so is each new one, until the server goes on.
//
// attack: 113
func TestAFrozenListenerIsNoticed(t *testing.T) {
	_, dsn, _ := announcing(t, 1)
	r, through := tokenstoretest.RelayTo(t, dsn)
	store := openPostgres(t, dsn, tokenstore.PostgresOptions{Listen: through})
	e := listen(t, store)
	r.Freeze()
	tokenstoretest.Exec(t, dsn, "DELETE FROM oauth_access_tokens")
	require.ErrorIs(t, e.fails(t), context.DeadlineExceeded)
	require.Error(t, watch(t, store).fails(t))
	r.Thaw()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		e = watch(t, store)
		select {
		case change := <-e.changes:
			assert.True(c, change.All)
		case err := <-e.ended:
			assert.NoError(c, err)
		}
	}, patient, 10*time.Millisecond)
}

func TestATableThatIsReplacedIsNoticed(t *testing.T) {
	store, dsn, _ := announcing(t, 0)
	e := listen(t, store)
	tokenstoretest.Exec(t, dsn, "ALTER TABLE oauth_access_tokens RENAME TO other", "CREATE TABLE oauth_access_tokens (digest bytea)")
	assert.ErrorIs(t, e.fails(t), tokenstore.ErrNoNotices, "a table put in the other's place has no trigger")
}

func TestADeadServerIsNotCalledMoreThanTenTimesASecond(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	var mu sync.Mutex
	dials := 0
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			dials++
			mu.Unlock()
			go func() {
				defer c.Close()
				c.Read(make([]byte, 1024))
				io.WriteString(c, "N")
			}()
		}
	}()
	store := openPostgres(t, "postgres://user:secret@"+l.Addr().String()+"/db", tokenstore.PostgresOptions{})
	ctx, stop := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer stop()
	for ctx.Err() == nil {
		err := store.Watch(ctx, func(tokenstore.Change) { assert.Fail(t, "nothing can be heard") })
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "secret")
	}
	mu.Lock()
	defer mu.Unlock()
	assert.GreaterOrEqual(t, dials, 4, "it goes on trying")
	assert.LessOrEqual(t, dials, 20, "ten in each of two seconds")
}

func TestTheDSNOfTheListenerIsNotShown(t *testing.T) {
	_, err := tokenstore.OpenPostgres(t.Context(), "postgres://localhost", tokenstore.PostgresOptions{Listen: "postgres://u:s3cret@h:port/db"})
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "s3cret")
}

func TestMigrateRevocationAtOnceFromManyInstances(t *testing.T) {
	b := postgresBackend(t)
	store := b.store.(*tokenstore.Postgres)
	var all sync.WaitGroup
	for range 8 {
		other := openPostgres(t, b.owner, tokenstore.PostgresOptions{})
		all.Go(func() { assert.NoError(t, other.MigrateRevocation(t.Context())) })
	}
	all.Wait()
	assert.NoError(t, store.CheckRevocation(t.Context()))
	assert.NotContains(t, store.RevocationSQL(), "{{")
	assert.True(t, strings.HasSuffix(store.RevocationSQL(), "COMMIT;\n"))
}
