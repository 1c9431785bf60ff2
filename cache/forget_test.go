package cache_test

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// forgets are the two ways to make a Tokens forget the first token.
var forgets = map[string]func(*cache.Tokens){
	"one": func(c *cache.Tokens) { c.Forget(digest(1)) },
	"all": (*cache.Tokens).ForgetAll,
}

// attack: 109
func TestTokensForgetsAtOnce(t *testing.T) {
	for name, forget := range forgets {
		t.Run(name, func(t *testing.T) {
			s := new(table)
			s.put(record(1))
			c := tokens(t, s, at(newClock()))
			for range 1000 { // ristretto may or may not have applied its write by then
				lookup(t, c, 1)
				s.remove(digest(1))
				forget(c)
				_, err := c.Lookup(t.Context(), digest(1))
				require.ErrorIs(t, err, tokenstore.ErrNotFound)
				s.put(record(1))
				forget(c)
			}
		})
	}
}

// The race that a plain cache loses: a lookup reads the old row, the notice of its deletion arrives, and only then does
// the lookup come back to remember what it read.
//
// attack: 109
func TestTokensForgetWinsAgainstALookupInFlight(t *testing.T) {
	for name, forget := range forgets {
		t.Run(name, func(t *testing.T) {
			s := new(table)
			s.put(record(1))
			reading, release := holdFirst(s)
			c := tokens(t, s, at(newClock()))
			early := async(c, 1)
			<-reading
			s.remove(digest(1))
			forget(c)

			_, err := c.Lookup(t.Context(), digest(1))
			require.ErrorIs(t, err, tokenstore.ErrNotFound, "who asks after the notice does not wait for the old row")
			release()
			require.ErrorIs(t, (<-early).err, tokenstore.ErrNotFound, "who asked before it is not given it either")
			for range 100 {
				_, err := c.Lookup(t.Context(), digest(1))
				require.ErrorIs(t, err, tokenstore.ErrNotFound)
			}
		})
	}
}

func TestTokensGivesUpOnARecordThatKeepsChanging(t *testing.T) {
	s := new(table)
	s.put(record(1))
	c := tokens(t, s, at(newClock()))
	s.hold(func(context.Context) { c.Forget(digest(1)) })
	r, err := c.Lookup(t.Context(), digest(1))
	require.ErrorContains(t, err, "kept changing")
	assert.Nil(t, r)
	assert.EqualValues(t, 3, s.queries.Load())
}

// 100,000 revocations, each forced into the middle of lookups that fill the cache with the old row, by themselves or many
// in one query.
//
// attack: 109
func TestTokensNeverServesAForgottenRecord(t *testing.T) {
	const races, owners, readers = 100_000, 8, 2
	s := new(batches)
	s.hold(func(context.Context) { runtime.Gosched() }) // between reading the row and returning it
	c := tokens(t, s)
	version := func(n uint64, v int) *tokenstore.Record {
		r := record(n)
		r.CreatedAt, r.ExpiresAt = time.Unix(int64(v), 0), time.Now().Add(time.Hour)
		return r
	}
	var stale, failed atomic.Int64
	var group sync.WaitGroup
	for n := range uint64(owners) {
		s.put(version(n, 0))
		d, over := digest(n), make(chan struct{})
		for range readers {
			group.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
						_, _ = c.Lookup(context.Background(), d)
						runtime.Gosched() // a request has other things to do, too
					}
				}
			})
		}
		group.Go(func() {
			defer close(over)
			for v := 1; v <= races/owners; v++ {
				s.put(version(n, v))
				c.Forget(d)
				switch r, err := c.Lookup(context.Background(), d); {
				case err != nil:
					failed.Add(1)
				case r.CreatedAt.Unix() < int64(v):
					stale.Add(1)
				}
			}
		})
	}
	group.Wait()
	assert.Zero(t, stale.Load())
	assert.Zero(t, failed.Load())
	gathered := slices.ContainsFunc(s.sizes(), func(n int) bool { return n > 1 })
	assert.True(t, gathered, "some lookups went together")
	t.Logf("%d races, %d queries, %+v", races, s.queries.Load(), c.Stats())
}
