package tokenstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
)

// These tests say what every Watcher does.

// ear is a Watch that runs, and what it has reported.
type ear struct {
	changes chan tokenstore.Change
	ended   chan error
	stop    context.CancelFunc
}

// listen starts a Watch, and returns when nothing can be missed any more.
func listen(t testing.TB, store tokenstore.Store) *ear {
	t.Helper()
	e := watch(t, store)
	require.True(t, e.next(t).All, "the first change is All")
	return e
}

// watch starts a Watch.
func watch(t testing.TB, store tokenstore.Store) *ear {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	e := &ear{changes: make(chan tokenstore.Change, 1000), ended: make(chan error, 1), stop: stop}
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.ended <- store.(tokenstore.Watcher).Watch(ctx, func(c tokenstore.Change) { e.changes <- c })
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return e
}

// next is the next change.
func (e *ear) next(t testing.TB) tokenstore.Change {
	t.Helper()
	select {
	case c := <-e.changes:
		return c
	case err := <-e.ended:
		require.NoError(t, err, "Watch has returned")
	case <-time.After(patient):
		require.Fail(t, "no change was reported")
	}
	return tokenstore.Change{}
}

// hears waits until all of these have been reported, and says by how many changes.
func (e *ear) hears(t testing.TB, digests ...tokenstore.Digest) int {
	t.Helper()
	missing := map[tokenstore.Digest]bool{}
	for _, d := range digests {
		missing[d] = true
	}
	for n := 1; ; n++ {
		c := e.next(t)
		if c.All {
			return n
		}
		for _, d := range c.Digests {
			delete(missing, d)
		}
		if len(missing) == 0 {
			return n
		}
	}
}

// fails is the error with which the Watch has returned.
func (e *ear) fails(t testing.TB) error {
	t.Helper()
	select {
	case err := <-e.ended:
		require.Error(t, err)
		return err
	case <-time.After(patient):
		require.Fail(t, "Watch goes on")
		return nil
	}
}

// eachWatched runs a test on all backends that are set up to be watched.
func eachWatched(t *testing.T, test func(*testing.T, backend)) {
	each(t, func(t *testing.T, b backend) {
		if owner := b.owner; owner != "" {
			require.NoError(t, openPostgres(t, owner, tokenstore.PostgresOptions{}).MigrateRevocation(t.Context()))
		}
		test(t, b)
	})
}

func TestWatchHearsOfEveryChange(t *testing.T) {
	eachWatched(t, func(t *testing.T, b backend) {
		e := listen(t, b.store)
		for name, change := range map[string]func(tokenstore.Digest){
			"revoked here": func(d tokenstore.Digest) {
				_, err := b.store.Revoke(t.Context(), tokenstore.Selector{Digest: &d})
				require.NoError(t, err)
			},
			"deleted by others": func(d tokenstore.Digest) {
				b.exec(t, "DELETE FROM oauth_access_tokens WHERE digest = "+b.bytes(d))
			},
			"changed by others": func(d tokenstore.Digest) {
				b.exec(t, "UPDATE oauth_access_tokens SET scopes = "+b.array("other")+" WHERE digest = "+b.bytes(d))
			},
		} {
			t.Run(name, func(t *testing.T) {
				r := insert(t, b.store, nil)
				change(r.Digest)
				e.hears(t, r.Digest)
			})
		}
	})
}

// Whatever was changed between two Watches, the second begins with All.
func TestWatchBeginsWithAll(t *testing.T) {
	eachWatched(t, func(t *testing.T, b backend) {
		for range 3 {
			e := listen(t, b.store)
			e.stop()
			require.ErrorIs(t, e.fails(t), context.Canceled)
			b.exec(t, "DELETE FROM oauth_access_tokens")
		}
	})
}

func TestWatchesDoNotDisturbEachOther(t *testing.T) {
	eachWatched(t, func(t *testing.T, b backend) {
		one, other := listen(t, b.store), listen(t, b.store)
		r := insert(t, b.store, nil)
		b.exec(t, "DELETE FROM oauth_access_tokens")
		one.hears(t, r.Digest)
		other.hears(t, r.Digest)
		one.stop()
		require.ErrorIs(t, one.fails(t), context.Canceled)
		r = insert(t, b.store, nil)
		b.exec(t, "DELETE FROM oauth_access_tokens")
		other.hears(t, r.Digest)
	})
}

// A lookup that is made after the report of a change sees the change.
func TestReportsComeAfterTheirChanges(t *testing.T) {
	eachWatched(t, func(t *testing.T, b backend) {
		e := listen(t, b.store)
		for range 20 {
			r := insert(t, b.store, nil)
			b.exec(t, "DELETE FROM oauth_access_tokens")
			e.hears(t, r.Digest)
			require.EventuallyWithT(t, func(c *assert.CollectT) { // an insert may be reported as a change, too
				_, err := b.store.Lookup(t.Context(), r.Digest)
				assert.ErrorIs(c, err, tokenstore.ErrNotFound)
			}, patient, time.Millisecond)
		}
	})
}

func TestParseNoticeTakesAllForWhatItCannotRead(t *testing.T) {
	d := newRecord().Digest
	all := tokenstore.Change{All: true}
	for payload, want := range map[string]tokenstore.Change{
		"changed " + d.String():              {Digests: []tokenstore.Digest{d}},
		"deleted " + d.String() + d.String(): {Digests: []tokenstore.Digest{d, d}, Deleted: true},
		"all":                                all,
		"":                                   all,
		"deleted":                            all,
		"deleted ":                           all,
		d.String():                           all,
		"other " + d.String():                all,
		"deleted  " + d.String():             all,
		"deleted " + d.String() + "00":       all,
		"deleted " + d.String()[2:]:          all,
		"deleted x" + d.String()[1:]:         all,
	} {
		assert.Equal(t, want, tokenstore.ParseNotice(payload), payload)
	}
}
