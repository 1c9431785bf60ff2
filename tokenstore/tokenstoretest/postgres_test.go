package tokenstoretest_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

func TestPostgresIsEmptyAndItsOwn(t *testing.T) {
	one, other := tokenstoretest.Postgres(t), tokenstoretest.Postgres(t)
	tokenstoretest.Exec(t, one, "CREATE TABLE mine (id int)")
	tokenstoretest.Exec(t, other, "CREATE TABLE mine (id int)")
}

func TestRoleHasOnlyWhatItIsGiven(t *testing.T) {
	dsn := tokenstoretest.Postgres(t)
	tokenstoretest.Exec(t, dsn, "CREATE TABLE mine (id int)", "CREATE TABLE other (id int)")
	role := tokenstoretest.Role(t, dsn, "GRANT SELECT ON mine TO ROLE")
	conn, err := pgx.Connect(context.Background(), role)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(context.Background(), "SELECT FROM mine")
	assert.NoError(t, err)
	_, err = conn.Exec(context.Background(), "SELECT FROM other")
	assert.ErrorContains(t, err, "permission denied")
	_, err = conn.Exec(context.Background(), "INSERT INTO mine VALUES (1)")
	assert.ErrorContains(t, err, "permission denied")
}

// outcome is a testing.TB that notes how a test would end.
type outcome struct {
	testing.TB
	failed, skipped bool
}

func (o *outcome) Helper()               {}
func (o *outcome) Fatalf(string, ...any) { o.failed = true; runtime.Goexit() }
func (o *outcome) Skipf(string, ...any)  { o.skipped = true; runtime.Goexit() }

func TestMissingServerFailsInCIAndSkipsElsewhere(t *testing.T) {
	t.Setenv("DPOPGATE_TEST_POSTGRES", "")
	ask := func() *outcome {
		o, done := &outcome{TB: t}, make(chan struct{})
		go func() {
			defer close(done)
			tokenstoretest.Postgres(o)
		}()
		<-done
		return o
	}
	t.Setenv("CI", "true")
	assert.True(t, ask().failed)
	t.Setenv("CI", "")
	assert.True(t, ask().skipped)
}
