package cache_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/tokenstore"
)

func TestTokensAsksTheStoreOnce(t *testing.T) {
	s := new(table)
	r := record(1)
	s.put(r)
	c := tokens(t, s, at(newClock()))
	for range 1000 {
		got, err := c.Lookup(t.Context(), r.Digest)
		require.NoError(t, err)
		require.Same(t, r, got)
	}
	assert.EqualValues(t, 1, s.queries.Load())
}

func TestTokensAsksAgainWhenTheTTLIsOver(t *testing.T) {
	s, now := new(table), newClock()
	s.put(record(1))
	c := tokens(t, s, at(now))
	lookup(t, c, 1)
	now.advance(time.Minute * 7 / 8) // up to an eighth less than the TTL
	now.advance(-time.Nanosecond)
	lookup(t, c, 1)
	assert.EqualValues(t, 1, s.queries.Load())

	s.remove(digest(1))
	now.set(midday.Add(time.Minute))
	_, err := c.Lookup(t.Context(), digest(1))
	require.ErrorIs(t, err, tokenstore.ErrNotFound)
}

func TestTokensCountsTheTTLFromBeforeTheQuery(t *testing.T) {
	s, now := new(table), newClock()
	s.put(record(1))
	s.hold(func(context.Context) { now.advance(50 * time.Second) })
	c := tokens(t, s, at(now))
	lookup(t, c, 1)
	now.advance(10 * time.Second)
	lookup(t, c, 1)
	assert.EqualValues(t, 2, s.queries.Load())
}

// attack: 122
func TestTokensSpreadsTheEndsOfTokensThatCameTogether(t *testing.T) {
	s, now := new(table), newClock()
	c := tokens(t, s, at(now))
	for n := range uint64(200) {
		s.put(record(n))
		lookup(t, c, n)
	}
	now.advance(time.Minute * 15 / 16)
	for n := range uint64(200) {
		lookup(t, c, n)
	}
	again := s.queries.Load() - 200
	assert.Positive(t, again)
	assert.Less(t, again, int64(200))
}

func TestTokensNeverServesALiveRecordPastItsExpiry(t *testing.T) {
	s, now := new(table), newClock()
	r := record(1)
	r.ExpiresAt = midday.Add(5 * time.Second)
	s.put(r)
	c := tokens(t, s, at(now))
	lookup(t, c, 1)
	now.set(r.ExpiresAt.Add(-time.Nanosecond))
	lookup(t, c, 1)
	assert.EqualValues(t, 1, s.queries.Load())

	s.remove(digest(1))
	now.set(r.ExpiresAt)
	_, err := c.Lookup(t.Context(), digest(1))
	require.ErrorIs(t, err, tokenstore.ErrNotFound)
}

func TestTokensReturnsExpiredRecordsAsTheStoreDoes(t *testing.T) {
	s, now := new(table), newClock()
	r := record(1)
	r.ExpiresAt = midday.Add(-time.Second)
	s.put(r)
	c := tokens(t, s, at(now))
	for range 100 {
		assert.True(t, lookup(t, c, 1).Expired(now.now()))
	}
	assert.EqualValues(t, 1, s.queries.Load(), "an expired token costs the store as little as an unknown one")

	r = record(1) // somebody gave it more time
	s.put(r)
	now.advance(2 * time.Second)
	assert.Same(t, r, lookup(t, c, 1))
}

// attack: 117
func TestTokensRemembersUnknownTokensForTheNegativeTTL(t *testing.T) {
	s, now := new(table), newClock()
	c := tokens(t, s, at(now))
	unknown := func() {
		t.Helper()
		_, err := c.Lookup(t.Context(), digest(1))
		require.ErrorIs(t, err, tokenstore.ErrNotFound)
	}
	unknown()
	now.advance(2*time.Second - time.Nanosecond)
	unknown()
	assert.EqualValues(t, 1, s.queries.Load())

	s.put(record(1))
	unknown()
	now.advance(time.Nanosecond)
	lookup(t, c, 1)
}

func TestTokensForgetsUnknownTokensToo(t *testing.T) {
	s := new(table)
	c := tokens(t, s, at(newClock()))
	_, err := c.Lookup(t.Context(), digest(1))
	require.ErrorIs(t, err, tokenstore.ErrNotFound)
	s.put(record(1))
	c.Forget(digest(1))
	lookup(t, c, 1)
}

// attack: 116
func TestTokensRemembersNothingWithoutATTL(t *testing.T) {
	s := new(table)
	s.put(record(1))
	c := tokens(t, s, func(o *cache.TokensOptions) { o.TTL, o.MaxSize = 0, 0 })
	for range 10 {
		lookup(t, c, 1)
		_, err := c.Lookup(t.Context(), digest(2))
		require.ErrorIs(t, err, tokenstore.ErrNotFound)
	}
	assert.EqualValues(t, 20, s.queries.Load())
	c.Forget(digest(1))
	assert.Zero(t, c.Stats().Size)
}

func TestTokensDoesNotShareAnswersWithoutATTL(t *testing.T) {
	s := new(table)
	s.put(record(1))
	reading, release := holdFirst(s)
	c := tokens(t, s, func(o *cache.TokensOptions) { o.TTL = 0 })
	first := async(c, 1)
	<-reading
	s.remove(digest(1)) // after the first has read it
	_, err := c.Lookup(t.Context(), digest(1))
	require.ErrorIs(t, err, tokenstore.ErrNotFound)
	release()
	require.NoError(t, (<-first).err)
}

func TestTokensDoesNotRememberErrors(t *testing.T) {
	s := new(table)
	s.put(record(1))
	down := errors.New("connection refused")
	s.fail(down)
	c := tokens(t, s, at(newClock()))
	_, err := c.Lookup(t.Context(), digest(1))
	require.ErrorIs(t, err, down)
	s.fail(nil)
	lookup(t, c, 1)
}

func TestTokensRefusesAnswersThatAreNone(t *testing.T) {
	for name, answer := range map[string]*tokenstore.Record{"nothing": nil, "another token's record": record(2)} {
		t.Run(name, func(t *testing.T) {
			c := tokens(t, lookupFunc(func() (*tokenstore.Record, error) { return answer, nil }))
			r, err := c.Lookup(t.Context(), digest(1))
			require.ErrorContains(t, err, "did not return the token's record")
			assert.NotErrorIs(t, err, tokenstore.ErrNotFound)
			assert.Nil(t, r)
		})
	}
	t.Run("a panic", func(t *testing.T) {
		c := tokens(t, lookupFunc(func() (*tokenstore.Record, error) { panic("nil map") }))
		_, err := c.Lookup(t.Context(), digest(1))
		require.ErrorContains(t, err, "token store panicked: nil map")
	})
}

// attack: 116
func TestTokensRefusesImpossibleOptions(t *testing.T) {
	for want, change := range map[string]func(*cache.TokensOptions){
		"TTL is -1s, want 0 or more":                    func(o *cache.TokensOptions) { o.TTL = -time.Second },
		"negative TTL is -1s, want 0 or more":           func(o *cache.TokensOptions) { o.NegativeTTL = -time.Second },
		"timeout is 0s, want more than 0":               func(o *cache.TokensOptions) { o.Timeout = 0 },
		"size is 0 bytes, want at least 1048576":        func(o *cache.TokensOptions) { o.MaxSize = 0 },
		"size is 1048575 bytes, want at least 1048576":  func(o *cache.TokensOptions) { o.MaxSize = cache.MinTokensSize - 1 },
		"size is -1048576 bytes, want at least 1048576": func(o *cache.TokensOptions) { o.MaxSize = -1 << 20 },
	} {
		o := cache.TokensOptions{MaxSize: cache.MinTokensSize, TTL: time.Minute, Timeout: time.Second}
		change(&o)
		_, err := cache.NewTokens(new(table), o)
		assert.ErrorContains(t, err, want)
	}
}

// attack: 121
func TestTokensSendsOneQueryForACrowd(t *testing.T) {
	s := new(table)
	s.put(record(1))
	c := tokens(t, s, at(newClock()))
	start := make(chan struct{})
	var group sync.WaitGroup
	for range 1000 {
		group.Go(func() {
			<-start
			_, err := c.Lookup(context.Background(), digest(1))
			assert.NoError(t, err)
		})
	}
	close(start)
	group.Wait()
	assert.EqualValues(t, 1, s.queries.Load())
}

// Whoever comes while an answer is on its way from the query into memory asks for it no second time.
func TestTokensSendsOneQueryHoweverCallersMeet(t *testing.T) {
	const known = 10_000
	s := new(table)
	for n := range uint64(known) {
		s.put(record(n))
	}
	c := tokens(t, s, at(newClock()))
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for n := range uint64(known) {
				_, err := c.Lookup(context.Background(), digest(n))
				assert.NoError(t, err)
			}
		})
	}
	group.Wait()
	assert.EqualValues(t, known, s.queries.Load())
}

// attack: 107
func TestTokensLetsACallerLeaveWithoutHarm(t *testing.T) {
	s := new(table)
	s.put(record(1))
	reading, release := holdFirst(s)
	c := tokens(t, s, at(newClock()))

	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := c.Lookup(ctx, digest(1))
		gone <- err
	}()
	<-reading
	others := []<-chan answer{async(c, 1), async(c, 1), async(c, 1)}
	leave()
	require.ErrorIs(t, <-gone, context.Canceled)
	release()
	for _, other := range others {
		require.NoError(t, (<-other).err)
	}
	assert.EqualValues(t, 1, s.queries.Load())
}

func TestTokensGivesTheStoreItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(table)
		s.hold(func(ctx context.Context) { <-ctx.Done() })
		c := tokens(t, s, func(o *cache.TokensOptions) { o.Timeout = 500 * time.Millisecond })
		start := time.Now()
		_, err := c.Lookup(t.Context(), digest(1))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 500*time.Millisecond, time.Since(start))
	})
}

func TestTokensTidiesUpByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(table)
		r := record(1)
		r.ExpiresAt = time.Now().Add(time.Hour)
		s.put(r)
		c := tokens(t, s)
		lookup(t, c, 1)
		synctest.Wait()
		assert.Positive(t, c.Stats().Size)
		time.Sleep(2*time.Minute + 15*time.Second) // of the bubble's time: the TTL, and as long for knowing it
		synctest.Wait()
		assert.Zero(t, c.Stats().Size)
		assert.Zero(t, c.Stats().Evictions)
	})
}

func TestTokensEndsRunningLookupsOnClose(t *testing.T) {
	s := new(table)
	reading := make(chan struct{})
	s.hold(func(ctx context.Context) {
		close(reading)
		<-ctx.Done()
	})
	c, err := cache.NewTokens(s, cache.TokensOptions{MaxSize: cache.MinTokensSize, TTL: time.Minute, Timeout: time.Hour})
	require.NoError(t, err)
	waiting := async(c, 1)
	<-reading
	c.Close()
	require.ErrorIs(t, (<-waiting).err, context.Canceled)
	_, err = c.Lookup(t.Context(), digest(1))
	require.ErrorContains(t, err, "closed")
	c.Forget(digest(1))
}

// attack: 119
func TestTokensKeepsKnownTokensInAFloodOfUnknownOnes(t *testing.T) {
	const known, flood = 5000, 100_000
	s := new(table)
	c := tokens(t, s, at(newClock()))
	for n := range uint64(known) {
		s.put(record(n))
		lookup(t, c, n)
	}
	for n := range uint64(flood) {
		_, err := c.Lookup(t.Context(), digest(known+n))
		require.ErrorIs(t, err, tokenstore.ErrNotFound)
	}
	before := s.queries.Load()
	for n := range uint64(known) {
		lookup(t, c, n)
	}
	assert.Equal(t, before, s.queries.Load())
	assert.Zero(t, c.Stats().Evictions)
}

func TestTokensTellsTokensApartThatShareAPlace(t *testing.T) {
	s := new(table)
	c := tokens(t, s, at(newClock()))
	nearby := func(n uint64) tokenstore.Digest { // forgotten together, and far more than there are places
		d := digest(n)
		d[0], d[1] = 0, 0
		return d
	}
	for n := range uint64(40_000) {
		_, err := c.Lookup(t.Context(), nearby(n))
		require.ErrorIs(t, err, tokenstore.ErrNotFound)
	}
	for n := uint64(40_000); n < 41_000; n++ {
		r := record(n)
		r.Digest = nearby(n)
		s.put(r)
		got, err := c.Lookup(t.Context(), r.Digest)
		require.NoError(t, err)
		require.Same(t, r, got)
	}
}

func TestTokensStaysWithinItsSize(t *testing.T) {
	const size = 8 << 20
	before := heap()
	c := tokens(t, madeUp{}, at(newClock()), func(o *cache.TokensOptions) { o.MaxSize = size })
	for n := range uint64(40_000) {
		lookup(t, c, n)
	}
	stats := c.Stats()
	used := heap() - before
	t.Logf("%d bytes used of %d, %+v", used, size, stats)
	assert.LessOrEqual(t, used, int64(size))
	assert.Greater(t, used, int64(size/2), "and makes use of it")
	assert.LessOrEqual(t, stats.Size, stats.MaxSize)
	assert.NotZero(t, stats.Evictions+stats.Drops)
	runtime.KeepAlive(c)
}

func TestTokensServesRecordsTooLargeToRemember(t *testing.T) {
	s := new(table)
	r := record(1)
	r.Metadata = make([]byte, 2<<20)
	s.put(r)
	c := tokens(t, s, at(newClock()), func(o *cache.TokensOptions) { o.MaxSize = cache.MinTokensSize })
	for range 3 {
		assert.Same(t, r, lookup(t, c, 1))
	}
	assert.LessOrEqual(t, c.Stats().Size, c.Stats().MaxSize)
}

func TestTokensCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(table)
		r := record(1)
		r.ExpiresAt = time.Now().Add(time.Hour)
		s.put(r)
		c := tokens(t, s)
		for range 3 {
			_, _ = c.Lookup(t.Context(), digest(2))
			synctest.Wait()
		}
		for range 5 {
			lookup(t, c, 1)
			synctest.Wait()
		}
		got := c.Stats()
		assert.Positive(t, got.MaxSize)
		assert.Positive(t, got.Size)
		assert.Less(t, got.Size, int64(2000))
		got.Size, got.MaxSize = 0, 0
		assert.Equal(t, cache.TokensStats{Hits: 4, NegativeHits: 2, Misses: 2, Queries: 2}, got)
	})
}

func TestTokensHitsWithoutAllocating(t *testing.T) {
	s := new(table)
	s.put(record(1))
	c := tokens(t, s, at(newClock()))
	remembered(t, c, 1)
	_, _ = c.Lookup(t.Context(), digest(2))
	known, unknown, ctx := digest(1), digest(2), t.Context()
	assert.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = c.Lookup(ctx, known) }))
	assert.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = c.Lookup(ctx, unknown) }))
	assert.EqualValues(t, 2, s.queries.Load())
}

func BenchmarkTokensHit(b *testing.B) {
	const known = 1000
	s := new(table)
	c := tokens(b, s, at(newClock()))
	var digests [known]tokenstore.Digest
	for n := range uint64(known) {
		s.put(record(n))
		remembered(b, c, n)
		digests[n] = digest(n)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			if _, err := c.Lookup(b.Context(), digests[n%known]); err != nil {
				b.Fatal(err)
			}
		}
	})
	assert.EqualValues(b, known, s.queries.Load())
}

// BenchmarkTokensMiss is what the cache adds to a query: a store that answers at once.
func BenchmarkTokensMiss(b *testing.B) {
	c := tokens(b, madeUp{}, at(newClock()))
	b.ReportAllocs()
	for n := uint64(0); b.Loop(); n++ {
		_, _ = c.Lookup(b.Context(), digest(n))
	}
}
