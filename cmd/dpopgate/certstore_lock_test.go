package main

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// certPatience bounds waiting for what must come, however busy the machine is.
const certPatience = time.Minute

func TestCertStorageLocksExclude(t *testing.T) {
	t.Parallel()
	overStorages(t, func(t *testing.T, open func() certmagic.Storage) {
		storages := []certmagic.Storage{open(), open()}
		goroutines := 20
		if _, slow := storages[0].(*certmagic.FileStorage); slow {
			goroutines = 4 // each of which waits for whole seconds
		}
		var inside, entered atomic.Int32
		var all sync.WaitGroup
		for i := range goroutines {
			all.Go(func() {
				s := storages[i%2]
				if !assert.NoError(t, s.Lock(t.Context(), "issue_cert_api.example.com")) {
					return
				}
				assert.EqualValues(t, 1, inside.Add(1), "two have the lock")
				_ = s.Store(t.Context(), "while/held", []byte("v")) // takes a moment
				entered.Add(1)
				inside.Add(-1)
				assert.NoError(t, s.Unlock(t.Context(), "issue_cert_api.example.com"))
			})
		}
		all.Wait()
		assert.EqualValues(t, goroutines, entered.Load())
	})
}

func TestCertStorageLocksAreByName(t *testing.T) {
	t.Parallel()
	overStorages(t, func(t *testing.T, open func() certmagic.Storage) {
		ctx, one, other := t.Context(), open(), open()
		require.NoError(t, one.Lock(ctx, "a"))
		require.NoError(t, one.Lock(ctx, "b"))
		require.NoError(t, other.Lock(ctx, "c"))
		for _, s := range []certmagic.Storage{one, other} {
			taken, err := s.(certmagic.TryLocker).TryLock(ctx, "a")
			require.NoError(t, err)
			assert.False(t, taken)
		}
		require.NoError(t, one.Unlock(ctx, "a"))
		taken, err := other.(certmagic.TryLocker).TryLock(ctx, "a")
		require.NoError(t, err)
		assert.True(t, taken)
		require.NoError(t, other.Unlock(ctx, "a"))
		require.NoError(t, one.Unlock(ctx, "b"))
		require.NoError(t, other.Unlock(ctx, "c"))
		assert.Error(t, one.Unlock(ctx, "a"), "it is not held")
	})
}

func TestCertStorageStopsWaitingForALockWithItsContext(t *testing.T) {
	t.Parallel()
	overStorages(t, func(t *testing.T, open func() certmagic.Storage) {
		one, other := open(), open()
		require.NoError(t, one.Lock(t.Context(), "a"))
		for _, s := range []certmagic.Storage{one, other} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			assert.ErrorIs(t, s.Lock(ctx, "a"), context.DeadlineExceeded)
		}
		require.NoError(t, one.Unlock(t.Context(), "a"))
		require.NoError(t, other.Lock(t.Context(), "a"))
		require.NoError(t, other.Unlock(t.Context(), "a"))
	})
}

func TestCertStoreTakesTheLockOfAHolderThatDied(t *testing.T) {
	t.Parallel()
	dsn := migratedDatabase(t)
	network, relayed := tokenstoretest.RelayTo(t, dsn)
	dead := newCertStore(t, relayed, certStoreOptions{Lease: time.Second, Timeout: time.Second})
	heir := newCertStore(t, dsn, certStoreOptions{})
	require.NoError(t, dead.Lock(t.Context(), "a"))
	taken, err := heir.TryLock(t.Context(), "a")
	require.NoError(t, err)
	require.False(t, taken)

	network.Refuse()
	ctx, cancel := context.WithTimeout(t.Context(), certPatience)
	defer cancel()
	require.NoError(t, heir.Lock(ctx, "a"))

	// The dead comes back, and must not take the lock from its heir: not by renewing, not by unlocking.
	network.Restore()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.ErrorContains(c, dead.RenewLockLease(t.Context(), "a", time.Hour), "another has it")
	}, certPatience, 20*time.Millisecond)
	assert.NoError(t, dead.Unlock(t.Context(), "a"))
	taken, err = dead.TryLock(t.Context(), "a")
	require.NoError(t, err)
	assert.False(t, taken)
	require.NoError(t, heir.Unlock(t.Context(), "a"))
	taken, err = dead.TryLock(t.Context(), "a")
	require.NoError(t, err)
	assert.True(t, taken)
}

func TestCertStoreKeepsALockForLongerThanItsLease(t *testing.T) {
	t.Parallel()
	dsn := migratedDatabase(t)
	holder := newCertStore(t, dsn, certStoreOptions{Lease: 3 * time.Second})
	other := newCertStore(t, dsn, certStoreOptions{})
	require.NoError(t, holder.Lock(t.Context(), "a"))
	require.NoError(t, holder.RenewLockLease(t.Context(), "a", time.Hour))
	until := lockEnd(t, dsn)
	assert.Less(t, time.Until(until), 30*time.Minute, "a lease of an hour would block the others for that long")
	require.Eventually(t, func() bool { return lockEnd(t, dsn).After(until.Add(2 * time.Second)) }, certPatience, 50*time.Millisecond)
	taken, err := other.TryLock(t.Context(), "a")
	require.NoError(t, err)
	assert.False(t, taken)
}

// lockEnd is the end of the one lock that there is.
func lockEnd(t *testing.T, dsn string) (until time.Time) {
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT until FROM dpopgate.locks").Scan(&until))
	return until
}

func TestCertStoreGetsALostLockBackWhenItIsFree(t *testing.T) {
	t.Parallel()
	dsn := migratedDatabase(t)
	s := newCertStore(t, dsn, certStoreOptions{})
	require.NoError(t, s.Lock(t.Context(), "a"))
	tokenstoretest.Exec(t, dsn, "UPDATE dpopgate.locks SET holder = 'another'")
	assert.ErrorContains(t, s.RenewLockLease(t.Context(), "a", 0), "another has it")
	tokenstoretest.Exec(t, dsn, "DELETE FROM dpopgate.locks")
	assert.NoError(t, s.RenewLockLease(t.Context(), "a", 0))
	assert.ErrorIs(t, s.RenewLockLease(t.Context(), "b", 0), errNotHeld)
	assert.False(t, lockEnd(t, dsn).IsZero())
}

func TestCertStoreGivesUpItsLocksWhenItCloses(t *testing.T) {
	t.Parallel()
	dsn := migratedDatabase(t)
	closing, err := openCertStore(t.Context(), dsn, certStoreOptions{})
	require.NoError(t, err)
	require.NoError(t, closing.Lock(t.Context(), "a"))
	require.NoError(t, closing.Lock(t.Context(), "b"))
	require.NoError(t, closing.Close())
	for _, name := range []string{"a", "b"} {
		taken, err := newCertStore(t, dsn, certStoreOptions{}).TryLock(t.Context(), name)
		require.NoError(t, err)
		assert.True(t, taken)
	}
}
