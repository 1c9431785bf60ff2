package cache_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/tokenstore"
)

const (
	atOnce     = 4    // queries
	maxWaiting = 4096 // lookups of tokens that are not known
)

// batches is a table that can be asked about many tokens at once. A query waits in the table's hold, and is then in asked.
type batches struct {
	table
	asked [][]tokenstore.Digest // guarded by the table's mu
}

func (s *batches) LookupAll(ctx context.Context, ds []tokenstore.Digest) []tokenstore.Answer {
	s.mu.Lock()
	s.asked = append(s.asked, slices.Clone(ds))
	held := s.held
	s.mu.Unlock()
	s.queries.Add(1)
	answers := make([]tokenstore.Answer, len(ds))
	for i, d := range ds {
		s.mu.Lock()
		answers[i] = tokenstore.Answer{Record: s.rows[d], Err: s.err}
		s.mu.Unlock()
		if answers[i] == (tokenstore.Answer{}) {
			answers[i].Err = tokenstore.ErrNotFound
		}
	}
	if held != nil {
		held(ctx)
	}
	return answers
}

// asksFirst says whether one of the queries that began at once, after n others, was about d before all else.
func (s *batches) asksFirst(n int, d tokenstore.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.asked[n:n+atOnce], func(ds []tokenstore.Digest) bool { return ds[0] == d })
}

// sizes are how many tokens each query was about.
func (s *batches) sizes() (sizes []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ds := range s.asked {
		sizes = append(sizes, len(ds))
	}
	return sizes
}

// stuck makes all queries of s wait until release is called once.
func stuck(s *table) (release func()) {
	released := make(chan struct{})
	s.hold(func(ctx context.Context) {
		select {
		case <-released:
		case <-ctx.Done():
		}
	})
	return sync.OnceFunc(func() { close(released) })
}

// busy has every query that may be under way be so, for tokens from 1,000,000 on. In a synctest bubble only.
func busy(c *cache.Tokens) {
	for n := range uint64(atOnce) {
		async(c, 1_000_000+n)
		synctest.Wait()
	}
}

func TestLookupsGoAtOnceAndGatherWhileOthersAreUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(batches)
		release := stuck(&s.table)
		c := tokens(t, s)
		busy(c)
		assert.Equal(t, slices.Repeat([]int{1}, atOnce), s.sizes(), "each by itself and without a wait")
		const more = 2*tokenstore.MaxBatch + 3
		var answers []<-chan answer
		for n := range uint64(more) {
			s.put(record(n))
			answers = append(answers, async(c, n))
		}
		synctest.Wait()
		assert.Len(t, s.sizes(), atOnce, "no more queries than that are under way")
		release()
		for n, a := range answers {
			got := <-a
			require.NoError(t, got.err)
			assert.Equal(t, digest(uint64(n)), got.record.Digest)
		}
		synctest.Wait()
		assert.Equal(t, []int{tokenstore.MaxBatch, tokenstore.MaxBatch, 3}, s.sizes()[atOnce:])
		assert.EqualValues(t, atOnce+3, c.Stats().Queries)
	})
}

// A crowd that comes for one token, and for nothing else, is two queries at the most, whatever else the store is doing.
//
// attack: 121
func TestACrowdIsOneQueryWhileOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(batches)
		s.put(record(1))
		release := stuck(&s.table)
		c := tokens(t, s)
		busy(c)
		for range 1000 {
			async(c, 1)
		}
		synctest.Wait()
		release()
		synctest.Wait()
		assert.Equal(t, []int{1}, s.sizes()[atOnce:])
	})
}

// attack: 175
func TestMoreThanTheStoreCanAnswerFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(batches)
		release := stuck(&s.table)
		c := tokens(t, s)
		s.put(record(1))
		busy(c)
		oldest := async(c, 0)
		synctest.Wait()
		for n := range uint64(maxWaiting - 1) {
			async(c, 2+n)
		}
		synctest.Wait()
		assert.Empty(t, oldest)
		newest := async(c, 1)
		synctest.Wait()
		require.Len(t, oldest, 1, "without any time going by")
		err := (<-oldest).err
		require.ErrorContains(t, err, "too many lookups are waiting")
		assert.NotErrorIs(t, err, tokenstore.ErrNotFound)
		assert.EqualValues(t, 1, c.Stats().Refused)
		release()
		assert.NoError(t, (<-newest).err, "it is the first to be asked for")
		synctest.Wait()
		assert.True(t, s.asksFirst(atOnce, digest(1)))
	})
}

// attack: 119
func TestKnownTokensGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(batches)
		r := record(1)
		r.ExpiresAt = time.Now().Add(time.Hour)
		s.put(r)
		c := tokens(t, s)
		lookup(t, c, 1)
		synctest.Wait()
		time.Sleep(time.Minute) // the TTL
		release := stuck(&s.table)
		busy(c)
		known := async(c, 1)
		synctest.Wait()
		for n := range uint64(maxWaiting + 1) {
			async(c, 2+n)
		}
		synctest.Wait()
		release()
		require.NoError(t, (<-known).err)
		synctest.Wait()
		assert.True(t, s.asksFirst(1+atOnce, digest(1)))
	})
}

// attack: 107
func TestNobodyAsksForThoseWhoLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(batches)
		release := stuck(&s.table)
		c := tokens(t, s, func(o *cache.TokensOptions) { o.Timeout = 500 * time.Millisecond })
		busy(c)
		ctx, leave := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for n := range uint64(100) {
			group.Go(func() {
				_, err := c.Lookup(ctx, digest(n))
				assert.ErrorIs(t, err, context.Canceled)
			})
		}
		synctest.Wait()
		leave()
		group.Wait()
		release()
		synctest.Wait()
		assert.Len(t, s.sizes(), atOnce)
	})
}

// attack: 172, 175
func TestWaitingForTheQueryCountsAsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(batches)
		s.put(record(1))
		s.hold(func(context.Context) { time.Sleep(time.Second) }) // and does not mind its context
		c := tokens(t, s, func(o *cache.TokensOptions) { o.Timeout = 500 * time.Millisecond })
		busy(c)
		start := time.Now()
		_, err := c.Lookup(t.Context(), digest(1))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 500*time.Millisecond, time.Since(start))
		s.hold(nil)
		time.Sleep(time.Second)
		lookup(t, c, 1)
	})
}

// attack: 119, 175
func TestAFloodOverASlowStoreLeavesRememberedTokensAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const known, flood = 1000, 6000
		s := new(batches)
		c := tokens(t, s, func(o *cache.TokensOptions) { o.Timeout = 500 * time.Millisecond })
		for n := range uint64(known) {
			r := record(n)
			r.ExpiresAt = time.Now().Add(time.Hour)
			s.put(r)
			lookup(t, c, n)
		}
		synctest.Wait()
		s.hold(func(context.Context) { time.Sleep(200 * time.Millisecond) })
		for n := range uint64(flood) {
			async(c, known+n)
		}
		synctest.Wait()
		before, start := c.Stats(), time.Now()
		for n := range uint64(known) {
			lookup(t, c, n)
		}
		after := c.Stats()
		assert.EqualValues(t, known, after.Hits-before.Hits)
		assert.Equal(t, before.Queries, after.Queries)
		assert.Zero(t, time.Since(start), "they wait for nothing")
		assert.Zero(t, after.Evictions)
		time.Sleep(time.Second)
		assert.Less(t, s.queries.Load()-known, int64(50), "and few queries reach the store")
	})
}
