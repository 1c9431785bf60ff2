package main

import (
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

func TestCertStoreNeverWaitsForAFrozenDatabase(t *testing.T) {
	t.Parallel()
	network, relayed := tokenstoretest.RelayTo(t, migratedDatabase(t))
	s := newCertStore(t, relayed, certStoreOptions{Key: storageKey, Timeout: 300 * time.Millisecond})
	soon := func(call func() error) { // the first calls connect, and on a busy machine that takes longer
		t.Helper()
		require.EventuallyWithT(t, func(c *assert.CollectT) { assert.NoError(c, call()) }, certPatience, 20*time.Millisecond)
	}
	soon(func() error { return s.Store(t.Context(), "key", []byte("v")) })
	soon(func() error { return s.Lock(t.Context(), "held") })

	network.Freeze()
	for doing, err := range everyCall(t.Context(), s) {
		assert.Error(t, err, doing)
		assert.False(t, errors.Is(err, fs.ErrNotExist), "%s: that would have a certificate ordered again", doing)
	}
	assert.Error(t, s.Unlock(t.Context(), "held"), "it was not released; its lease ends it")
	network.Thaw()
	assert.EventuallyWithT(t, func(c *assert.CollectT) {
		_, err := s.Load(t.Context(), "key")
		assert.NoError(c, err)
	}, certPatience, 20*time.Millisecond)
}

func TestCertStoreSurvivesConnectionsThatBreak(t *testing.T) {
	t.Parallel()
	network, relayed := tokenstoretest.RelayTo(t, migratedDatabase(t))
	s := newCertStore(t, relayed, certStoreOptions{Timeout: certPatience})
	for range 3 {
		require.NoError(t, s.Store(t.Context(), "key", []byte("v")))
		require.NoError(t, s.Lock(t.Context(), "a"))
		network.Refuse()
		network.Restore()
		require.NoError(t, s.Unlock(t.Context(), "a"))
	}
}

func TestCertStoreSaysWhatIsMissingInTheDatabase(t *testing.T) {
	t.Parallel()
	dsn := tokenstoretest.Postgres(t)
	s := newCertStore(t, dsn, certStoreOptions{})
	assert.ErrorContains(t, s.Store(t.Context(), "key", nil), "run dpopgate migrate")
	assert.ErrorContains(t, s.Lock(t.Context(), "a"), "run dpopgate migrate")
	require.NoError(t, s.Migrate(t.Context()))

	stranger := newCertStore(t, tokenstoretest.Role(t, dsn), certStoreOptions{})
	assert.ErrorContains(t, stranger.Store(t.Context(), "key", nil), "the role needs USAGE")
	_, err := openCertStore(t.Context(), "postgres://user:hunter2@host:port/", certStoreOptions{})
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "hunter2")
}

func TestCertStoreNeedsNoMoreThanItSays(t *testing.T) {
	t.Parallel()
	dsn := migratedDatabase(t)
	role := tokenstoretest.Role(t, dsn, "GRANT USAGE ON SCHEMA dpopgate TO ROLE",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dpopgate TO ROLE")
	s := newCertStore(t, role, certStoreOptions{Key: storageKey})
	require.NoError(t, s.Migrate(t.Context()), "there is nothing to create")
	require.NoError(t, s.Lock(t.Context(), "a"))
	require.NoError(t, s.RenewLockLease(t.Context(), "a", time.Minute))
	require.NoError(t, s.Unlock(t.Context(), "a"))
	require.NoError(t, s.Store(t.Context(), "key", []byte("v")))
	require.NoError(t, s.Delete(t.Context(), "key"))
}

// Behind a PgBouncer each statement may be on another connection, and none is prepared.
func TestCertStoreWorksWithoutPreparedStatements(t *testing.T) {
	t.Parallel()
	dsn := migratedDatabase(t)
	for _, mode := range []string{"simple_protocol", "exec", "describe_exec"} {
		s := newCertStore(t, dsn+"&default_query_exec_mode="+mode, certStoreOptions{Key: storageKey})
		require.NoError(t, s.Migrate(t.Context()))
		require.NoError(t, s.Lock(t.Context(), "a"), mode)
		require.NoError(t, s.RenewLockLease(t.Context(), "a", time.Minute))
		require.NoError(t, s.Unlock(t.Context(), "a"))
		require.NoError(t, s.Store(t.Context(), "folder/key", []byte("v\x00")))
		value, err := s.Load(t.Context(), "folder/key")
		require.NoError(t, err)
		assert.Equal(t, "v\x00", string(value))
		info, err := s.Stat(t.Context(), "folder/key")
		require.NoError(t, err)
		assert.EqualValues(t, 2, info.Size)
		keys, err := s.List(t.Context(), "folder", true)
		require.NoError(t, err)
		assert.Equal(t, []string{"folder/key"}, keys)
	}
}

func TestCertStoreIsMigratedByManyAtOnce(t *testing.T) {
	t.Parallel()
	dsn := tokenstoretest.Postgres(t)
	errs := make(chan error)
	for range 5 {
		s := newCertStore(t, dsn, certStoreOptions{Key: storageKey})
		go func() { errs <- s.Migrate(t.Context()) }()
	}
	for range 5 {
		assert.NoError(t, <-errs)
	}
	tokenstoretest.Exec(t, dsn, newCertStore(t, dsn, certStoreOptions{}).SQL(), "SELECT FROM dpopgate.certificates, dpopgate.locks")
}
