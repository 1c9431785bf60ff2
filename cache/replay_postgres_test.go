package cache_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

func openPostgresProofs(t testing.TB, dsn string, o cache.PostgresProofsOptions) *cache.PostgresProofs {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = patient
	}
	p, err := cache.OpenPostgresProofs(dsn, o)
	require.NoError(t, err)
	closeLater(t, p)
	return p
}

// proofsDatabase is a database with the table, and the DSN of a role that may do no more than it needs.
func proofsDatabase(t testing.TB) (owner, role string) {
	owner = tokenstoretest.Postgres(t)
	require.NoError(t, openPostgresProofs(t, owner, cache.PostgresProofsOptions{}).Migrate(context.Background()))
	return owner, tokenstoretest.Role(t, owner, "GRANT SELECT, INSERT, UPDATE, DELETE ON dpopgate_proofs TO ROLE")
}

func TestPostgresProofs(t *testing.T) {
	_, dsn := proofsDatabase(t)
	testReplay(t, func(t testing.TB, now func() time.Time) []dpop.Replay {
		return []dpop.Replay{
			openPostgresProofs(t, dsn, cache.PostgresProofsOptions{Now: now}),
			openPostgresProofs(t, dsn, cache.PostgresProofsOptions{Now: now}),
		}
	})
}

// attack: 179
func TestPostgresProofsOutage(t *testing.T) {
	_, dsn := proofsDatabase(t)
	link, through := tokenstoretest.RelayTo(t, dsn)
	testReplayOutage(t, link, func(t *testing.T) dpop.Replay {
		return openPostgresProofs(t, through, cache.PostgresProofsOptions{Timeout: 200 * time.Millisecond})
	})
}

// The database's clock counts: an instance whose own is behind by any amount takes nothing that was forgotten.
func TestPostgresProofsRefusesWhatTheDatabaseMayHaveForgotten(t *testing.T) {
	owner, dsn := proofsDatabase(t)
	behind := newClock()
	behind.set(time.Now().Add(-time.Hour))
	late := newReplay(openPostgresProofs(t, dsn, cache.PostgresProofsOptions{Now: behind.now}))
	within := late.instances[0].(*cache.PostgresProofs)
	within.SetSlack(2 * time.Hour)
	until := behind.now().Add(time.Minute)

	assert.True(t, late.claim(t, late.key(1), until), "an hour is within two")
	n, err := within.Purge(t.Context())
	require.NoError(t, err)
	assert.Zero(t, n)
	assert.False(t, late.claim(t, late.key(1), until), "it has ended, but it is not forgotten, and this is the same")

	within.SetSlack(time.Minute)
	n, err = within.Purge(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 1, n)
	fresh, err := late.Claim(t.Context(), late.key(1), until)
	assert.ErrorIs(t, err, cache.ErrClocks)
	assert.False(t, fresh)
	assert.Zero(t, countProofs(t, owner))
}

func TestPostgresProofsDeletesOnlyWhatHasEnded(t *testing.T) {
	owner, dsn := proofsDatabase(t)
	tokenstoretest.Exec(
		t, owner,
		"INSERT INTO dpopgate_proofs SELECT sha256(n::text::bytea), now() - interval '11 s' FROM generate_series(1, 12345) n",
		"INSERT INTO dpopgate_proofs SELECT sha256(n::text::bytea), now() + interval '1 h' FROM generate_series(20001, 20100) n",
	)
	one, other := openPostgresProofs(t, dsn, cache.PostgresProofsOptions{}), openPostgresProofs(t, dsn, cache.PostgresProofsOptions{})
	var group sync.WaitGroup
	for _, p := range []*cache.PostgresProofs{one, other} {
		group.Go(func() {
			_, err := p.Purge(t.Context())
			assert.NoError(t, err)
		})
	}
	group.Wait()
	_, err := one.Purge(t.Context()) // each of the two left alone what the other was at
	require.NoError(t, err)
	assert.Equal(t, 100, countProofs(t, owner))
}

func TestPostgresProofsDeletesByItself(t *testing.T) {
	t.Parallel()
	owner, dsn := proofsDatabase(t)
	tokenstoretest.Exec(t, owner, "INSERT INTO dpopgate_proofs VALUES (sha256('old'), now() - interval '1 h')")
	openPostgresProofs(t, dsn, cache.PostgresProofsOptions{})
	require.Eventually(t, func() bool { return countProofs(t, owner) == 0 }, patient, 100*time.Millisecond)
}

// When an answer was lost, a second attempt cannot tell a repeat from the first attempt's own row.
func TestPostgresProofsDoesNotGuessAfterALostAnswer(t *testing.T) {
	_, dsn := proofsDatabase(t)
	link, through := tokenstoretest.RelayTo(t, dsn)
	r := newReplay(openPostgresProofs(t, through, cache.PostgresProofsOptions{}))
	race(r, r.key(0), time.Now().Add(time.Minute)) // for a second attempt there must be another connection
	link.SwallowOnce()
	fresh, err := r.Claim(t.Context(), r.key(100), time.Now().Add(time.Minute))
	require.ErrorIs(t, err, cache.ErrUnsure)
	assert.False(t, fresh)
	assert.False(t, r.claim(t, r.key(100), time.Now().Add(time.Minute)))
}

func TestPostgresProofsReplacesBrokenConnections(t *testing.T) {
	_, dsn := proofsDatabase(t)
	link, through := tokenstoretest.RelayTo(t, dsn)
	r := newReplay(openPostgresProofs(t, through, cache.PostgresProofsOptions{}))
	race(r, r.key(0), time.Now().Add(time.Minute)) // the whole pool
	link.Cut()
	recovers(t, r, 1)
}

func TestPostgresProofsMigratesOnceAndForAll(t *testing.T) {
	dsn := tokenstoretest.Postgres(t)
	p := openPostgresProofs(t, dsn, cache.PostgresProofsOptions{})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() { assert.NoError(t, p.Migrate(t.Context())) })
	}
	group.Wait()
	tokenstoretest.Exec(t, dsn, p.SQL())
	tokenstoretest.Exec(t, dsn, "INSERT INTO dpopgate_proofs VALUES (sha256('x'), now())")
	guest := openPostgresProofs(t, tokenstoretest.Role(t, dsn), cache.PostgresProofsOptions{})
	require.NoError(t, guest.Migrate(t.Context()), "with nothing to do it needs no right")
	assert.Equal(t, 1, countProofs(t, dsn))
}

func TestPostgresProofsStandsBesideTheTokenTable(t *testing.T) {
	dsn := tokenstoretest.Postgres(t)
	tokenstoretest.Exec(t, dsn, `CREATE SCHEMA "My ""Auth"""`)
	p := openPostgresProofs(t, dsn, cache.PostgresProofsOptions{TokenTable: `"My ""Auth""".tokens`})
	require.NoError(t, p.Migrate(t.Context()))
	r := newReplay(p)
	assert.True(t, r.claim(t, r.key(1), time.Now().Add(time.Minute)))
	tokenstoretest.Exec(t, dsn, `TABLE "My ""Auth""".dpopgate_proofs`)

	_, err := cache.OpenPostgresProofs(dsn, cache.PostgresProofsOptions{TokenTable: "a b"})
	assert.ErrorContains(t, err, `opening replay store: table "a b"`)
}

func TestPostgresProofsSaysWhatIsMissing(t *testing.T) {
	dsn := tokenstoretest.Postgres(t)
	p := openPostgresProofs(t, dsn, cache.PostgresProofsOptions{})
	k := newReplay().key(1)
	until := time.Now().Add(time.Minute)
	fails := func(p *cache.PostgresProofs, want string) {
		t.Helper()
		assert.ErrorContains(t, p.Ping(t.Context()), want)
		fresh, err := p.Claim(t.Context(), k, until)
		assert.ErrorContains(t, err, want)
		assert.False(t, fresh)
		_, err = p.Check(t.Context())
		assert.ErrorContains(t, err, want)
	}
	fails(p, `claiming a proof: table "public"."dpopgate_proofs" is not there: run dpopgate migrate`)

	require.NoError(t, p.Migrate(t.Context()))
	reader := tokenstoretest.Role(t, dsn, "GRANT SELECT, INSERT, DELETE ON dpopgate_proofs TO ROLE")
	fails(openPostgresProofs(t, reader, cache.PostgresProofsOptions{}), `the role needs SELECT, INSERT, UPDATE and DELETE on "public"."dpopgate_proofs"`)
	standby := openPostgresProofs(t, withSetting(dsn, "default_transaction_read_only", "on"), cache.PostgresProofsOptions{})
	fails(standby, "this database is read-only: name the primary")
	assert.Zero(t, countProofs(t, dsn), "asking takes nothing")
}

func TestPostgresProofsTellsWhatCouldForget(t *testing.T) {
	owner, dsn := proofsDatabase(t)
	check := func(setting, value string, o cache.PostgresProofsOptions) string {
		doubts, err := openPostgresProofs(t, withSetting(dsn, setting, value), o).Check(t.Context())
		require.NoError(t, err)
		return strings.Join(doubts, "\n")
	}
	assert.NotContains(t, check("synchronous_commit", "on", cache.PostgresProofsOptions{}), "synchronous_commit")
	assert.Contains(t, check("synchronous_commit", "off", cache.PostgresProofsOptions{}), "synchronous_commit is off")
	behind := newClock()
	behind.set(time.Now().Add(-time.Hour))
	assert.Contains(t, check("synchronous_commit", "on", cache.PostgresProofsOptions{Now: behind.now}), "differ by 1h0m")
	tokenstoretest.Exec(t, owner, "ALTER TABLE dpopgate_proofs SET UNLOGGED")
	assert.Contains(t, check("synchronous_commit", "on", cache.PostgresProofsOptions{}), "is unlogged")
}

func TestPostgresProofsOpensWithoutItsServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l.Close()
	p := openPostgresProofs(t, "postgres://nobody:s3cret@"+l.Addr().String()+"/nothing", cache.PostgresProofsOptions{})
	fresh, err := p.Claim(t.Context(), dpop.ReplayKey{}, time.Now().Add(time.Minute))
	require.ErrorContains(t, err, "claiming a proof: connecting")
	assert.NotContains(t, err.Error(), "s3cret")
	assert.False(t, fresh)

	_, err = cache.OpenPostgresProofs("postgres://nobody:s3cret@host:port/db", cache.PostgresProofsOptions{})
	require.ErrorContains(t, err, "opening replay store: the Postgres DSN is not valid")
	assert.NotContains(t, err.Error(), "s3cret")
}

func BenchmarkPostgresProofs(b *testing.B) {
	_, dsn := proofsDatabase(b)
	benchmarkReplay(b, func(b testing.TB, now func() time.Time) []dpop.Replay {
		return []dpop.Replay{openPostgresProofs(b, dsn, cache.PostgresProofsOptions{Now: now})}
	})
}

func countProofs(t testing.TB, dsn string) (n int) {
	conn, err := pgx.Connect(context.Background(), dsn)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	require.NoError(t, conn.QueryRow(context.Background(), "SELECT count(*) FROM dpopgate_proofs").Scan(&n))
	return n
}

// withSetting adds a setting of the session to a URL.
func withSetting(dsn, name, value string) string { return dsn + "&" + name + "=" + value }
