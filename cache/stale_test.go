package cache_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// standing is a Tokens with a TTL of a minute that lets records of s serve for another ten, with the first of them
// remembered for long enough to need it. In a synctest bubble only.
func standing(t *testing.T, s *batches, change ...func(*cache.TokensOptions)) *cache.Tokens {
	r := record(1)
	r.ExpiresAt = time.Now().Add(5 * time.Minute)
	s.put(r)
	c := tokens(t, s, append(change, func(o *cache.TokensOptions) {
		o.StaleOnError, o.Timeout = 10*time.Minute, 500*time.Millisecond
	})...)
	lookup(t, c, 1)
	synctest.Wait()
	time.Sleep(time.Minute)
	return c
}

// refuses wants an error that is not ErrNotFound.
func refuses(t *testing.T, c *cache.Tokens) {
	t.Helper()
	_, err := c.Lookup(t.Context(), digest(1))
	require.Error(t, err)
	assert.NotErrorIs(t, err, tokenstore.ErrNotFound)
}

func TestARecordStandsInForAStoreThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(batches)
		c := standing(t, s)
		s.fail(errDown)
		lookup(t, c, 1)
		time.Sleep(4*time.Minute - time.Nanosecond)
		lookup(t, c, 1)
		assert.EqualValues(t, 2, c.Stats().StaleHits)
		time.Sleep(time.Nanosecond)
		refuses(t, c) // never past its expiry

		s.fail(nil)
		s.remove(digest(1))
		synctest.Wait()
		_, err := c.Lookup(t.Context(), digest(1))
		assert.ErrorIs(t, err, tokenstore.ErrNotFound)
	})
}

func TestARecordStandsInForAsLongAsToldAndByDefaultNotAtAll(t *testing.T) {
	for _, stale := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			s := new(batches)
			r := record(1)
			r.ExpiresAt = time.Now().Add(time.Hour)
			s.put(r)
			c := tokens(t, s, func(o *cache.TokensOptions) { o.StaleOnError = stale })
			lookup(t, c, 1)
			synctest.Wait()
			s.fail(errDown)
			if stale > 0 {
				time.Sleep(time.Minute + stale/2)
				lookup(t, c, 1)
				time.Sleep(stale / 2)
			} else {
				time.Sleep(time.Minute)
			}
			refuses(t, c)
		})
	}
}

// A store that is frozen costs the first caller its time, and those after it nothing, until it answers again.
//
// attack: 172, 175
func TestARecordStandsInForAStoreThatIsFrozenWithoutAWaitForEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(batches)
		c := standing(t, s)
		s.hold(func(ctx context.Context) { <-ctx.Done() })
		s.fail(context.DeadlineExceeded)
		start := time.Now()
		lookup(t, c, 1)
		assert.Equal(t, 500*time.Millisecond, time.Since(start))
		start = time.Now()
		for range 1000 {
			lookup(t, c, 1)
		}
		assert.Zero(t, time.Since(start))

		s.fail(nil)
		s.hold(nil)
		s.remove(digest(1))
		time.Sleep(time.Second) // what the thousand left under way
		c.Lookup(t.Context(), digest(1))
		synctest.Wait()
		_, err := c.Lookup(t.Context(), digest(1))
		assert.ErrorIs(t, err, tokenstore.ErrNotFound, "the store is believed as soon as it answers")
	})
}

func TestNothingStandsInAfterAForget(t *testing.T) {
	for name, forget := range forgets {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(batches)
				c := standing(t, s)
				s.fail(errDown)
				lookup(t, c, 1)
				forget(c)
				refuses(t, c)
			})
		})
	}
}

// What the store has said last counts, also when it has stopped talking since.
func TestNothingStandsInForAnAnswerOfTheStore(t *testing.T) {
	for name, change := range map[string]func(*batches){
		"gone":        func(s *batches) { s.remove(digest(1)) },
		"of no sense": func(s *batches) { s.fail(tokenstore.ErrCorrupt) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(batches)
				c := standing(t, s)
				change(s)
				_, err := c.Lookup(t.Context(), digest(1))
				require.Error(t, err)
				s.fail(errDown)
				time.Sleep(3 * time.Second) // the negative TTL is over
				refuses(t, c)
			})
		})
	}
	t.Run("of fewer scopes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := new(batches)
			c := standing(t, s)
			r := *record(1)
			r.Scopes, r.ExpiresAt = nil, time.Now().Add(time.Hour)
			s.put(&r)
			lookup(t, c, 1)
			synctest.Wait()
			s.fail(errDown)
			time.Sleep(2 * time.Minute)
			assert.Empty(t, lookup(t, c, 1).Scopes)
		})
	})
}

// Nobody who leaves, and no token that is unknown, gets what stands in.
func TestUnknownTokensHaveNoStandIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(batches)
		c := standing(t, s)
		_, err := c.Lookup(t.Context(), digest(2))
		require.ErrorIs(t, err, tokenstore.ErrNotFound)
		s.fail(errDown)
		time.Sleep(2 * time.Second)
		_, err = c.Lookup(t.Context(), digest(2))
		require.ErrorIs(t, err, errDown)
	})
}
