package cache_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// table is a store in memory. Lookups read a row, and then wait in held, if it is set.
type table struct {
	mu      sync.Mutex
	rows    map[tokenstore.Digest]*tokenstore.Record
	err     error                     // what lookups return instead, if it is set
	held    func(ctx context.Context) // called with the row read and the lock released
	queries atomic.Int64
}

func (s *table) Lookup(ctx context.Context, d tokenstore.Digest) (*tokenstore.Record, error) {
	s.queries.Add(1)
	s.mu.Lock()
	r, err, held := s.rows[d], s.err, s.held
	s.mu.Unlock()
	if held != nil {
		held(ctx)
	}
	switch {
	case err != nil:
		return nil, err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case r == nil:
		return nil, tokenstore.ErrNotFound
	}
	return r, nil
}

func (s *table) put(r *tokenstore.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows == nil {
		s.rows = make(map[tokenstore.Digest]*tokenstore.Record)
	}
	s.rows[r.Digest] = r
}

func (s *table) remove(d tokenstore.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rows, d)
}

func (s *table) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *table) hold(f func(ctx context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = f
}

// tokens is a Tokens in front of s with a TTL of a minute, changed by the options given.
func tokens(t testing.TB, s cache.Lookuper, change ...func(*cache.TokensOptions)) *cache.Tokens {
	t.Helper()
	o := cache.TokensOptions{MaxSize: 16 << 20, TTL: time.Minute, NegativeTTL: 2 * time.Second, Timeout: time.Minute}
	for _, f := range change {
		f(&o)
	}
	c, err := cache.NewTokens(s, o)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func at(c *clock) func(*cache.TokensOptions) {
	return func(o *cache.TokensOptions) { o.Now = c.now }
}

// digest is the n-th of a series of digests.
func digest(n uint64) tokenstore.Digest { return tokenstore.Digest(replayKey(n)) }

// record is a row with the n-th digest that lives for another hour after midday.
func record(n uint64) *tokenstore.Record {
	return &tokenstore.Record{
		Digest:    digest(n),
		TokenType: tokenstore.DPoP,
		DPoPJKT:   "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
		Scopes:    []string{"orders:read", "orders:write"},
		Metadata:  []byte(`{"device":"phone"}`),
		ExpiresAt: midday.Add(time.Hour),
	}
}

// lookup wants a record.
func lookup(t testing.TB, c *cache.Tokens, n uint64) *tokenstore.Record {
	t.Helper()
	r, err := c.Lookup(t.Context(), digest(n))
	require.NoError(t, err)
	return r
}

// remembered looks the n-th token up until that is a hit.
func remembered(t testing.TB, c *cache.Tokens, n uint64) {
	t.Helper()
	hits := c.Stats().Hits
	for c.Stats().Hits == hits {
		lookup(t, c, n)
	}
}

// answer is what a Lookup returned.
type answer struct {
	record *tokenstore.Record
	err    error
}

// async is a Lookup in the background.
func async(c *cache.Tokens, n uint64) <-chan answer {
	done := make(chan answer, 1)
	go func() {
		r, err := c.Lookup(context.Background(), digest(n))
		done <- answer{r, err}
	}()
	return done
}

// holdFirst makes the first lookup of s wait, once it has read its row, until release is called.
func holdFirst(s *table) (reading <-chan struct{}, release func()) {
	first, read, released := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	first <- struct{}{}
	s.hold(func(context.Context) {
		select {
		case <-first:
			close(read)
			<-released
		default:
		}
	})
	return read, func() { close(released) }
}

// lookupFunc is a store with the same answer for all.
type lookupFunc func() (*tokenstore.Record, error)

func (f lookupFunc) Lookup(context.Context, tokenstore.Digest) (*tokenstore.Record, error) {
	return f()
}

// madeUp is a store that makes up a record for each digest, so that nobody but the cache keeps it.
type madeUp struct{}

func (madeUp) Lookup(_ context.Context, d tokenstore.Digest) (*tokenstore.Record, error) {
	r := record(0)
	r.Digest = d
	r.DPoPJKT = strings.Clone(r.DPoPJKT)
	for i, scope := range r.Scopes {
		r.Scopes[i] = strings.Clone(scope)
	}
	return r, nil
}
